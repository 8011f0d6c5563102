"""What a person sees in the Prefect UI: the run's page and its artifacts tell the verdict, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.helpers import command, digits
from tests.e2e.stack.stacks import project, until, up

pytestmark = pytest.mark.slow  # minutes, and many processes: `make test-all` runs these

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURES = os.environ.get("LEPTONFLOW_PICTURES")  # a folder to keep the screenshots in, such as docs/images


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt install chromium brings it")
def test_the_run_page_and_its_artifacts_tell_the_verdict(tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    folder = project(tmp_path / "work", debounce=0)
    assert command("ingest", "small", digits(tmp_path / "monday", 3, 20), cwd=folder).status == 0
    with up(folder) as stack, sync_playwright() as playwright:
        run = until(lambda: stack.runs("small"), 30, "a run of what was there before")[0]["id"]
        ended = stack.ended(run)
        assert ended["state"]["name"] == "promoted"
        assert "small" in ended["name"] and "promoted" in ended["name"], ended["name"]
        assert {"leptonflow", "small", "promoted"} <= set(ended["tags"])
        ui = stack.api.removesuffix("/api")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1100})
        page.goto(f"{ui}/v2/runs/flow-run/{run}")  # as a notification has it
        password = page.locator("input[type=password]")
        expect(password).to_be_visible(timeout=30_000)
        keep(page, tmp_path, "prefect-login.png")
        password.fill("wrong")
        password.press("Enter")
        expect(password).to_be_visible()
        password.fill(":".join(stack.login))
        password.press("Enter")
        expect(page.get_by_text(ended["name"]).first).to_be_visible(timeout=30_000)
        assert f"/runs/flow-run/{run}" in page.url
        page.goto(f"{ui}/runs/flow-run/{run}?tab=Artifacts")
        expect(page.get_by_text(ended["name"]).first).to_be_visible(timeout=30_000)
        page.get_by_text("Artifacts", exact=True).first.click()
        expect(page.get_by_text("promoted").first).to_be_visible(timeout=30_000)
        keep(page, tmp_path, "prefect-run.png")

        found = stack.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        kinds = {artifact["type"] for artifact in found}
        assert {"markdown", "table", "image", "progress"} <= kinds, kinds
        summary = next(a for a in found if a["key"] == "summary-small")
        page.goto(f"{ui}/artifacts/artifact/{summary['id']}")
        told = page.get_by_role("heading", name="promoted").or_(page.get_by_text("promoted, the first champion"))
        expect(told.first).to_be_visible(timeout=30_000)
        keep(page, tmp_path, "prefect-summary.png")
        image = next(a for a in found if a["type"] == "image")
        page.goto(f"{ui}/artifacts/artifact/{image['id']}")
        drawn = page.locator("img[src^='data:'], img[src^='http']").first
        expect(drawn).to_be_visible(timeout=30_000)
        assert drawn.evaluate("image => image.complete && image.naturalWidth > 100")
        keep(page, tmp_path, "prefect-image.png")

        report = next(a for a in found if a["key"] == "report-small")
        link = re.search(r"\((http://127\.0\.0\.1:\d+/p/small/runs/[0-9a-f]{12}/report\.html)\)", report["data"])
        assert link is not None, report["data"]
        page.goto(link[1])  # on the board, with no login
        expect(page.get_by_role("heading", name="Gate")).to_be_visible()

        champions = stack.ask("/artifacts/latest/filter", {"artifacts": {"key": {"like_": "champion-"}}})
        assert [a["key"] for a in champions] == ["champion-small"]
        page.goto(f"{ui}/artifacts/key/champion-small")
        expect(page.get_by_text("champion-small").first).to_be_visible(timeout=30_000)
        keep(page, tmp_path, "prefect-champion.png")
        browser.close()


def keep(page: object, folder: Path, name: str) -> None:
    page.screenshot(path=Path(PICTURES) / name if PICTURES else folder / name)  # type: ignore[attr-defined]
