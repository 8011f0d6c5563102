"""The pages of `leptonflow board` in a real browser, and how long one takes where there are 2,000 runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from benchmarks import board as benchmark
from flows.stack import ports
from leptonflow.monitoring import drift_looks
from leptonflow.storage.address import open_store
from schemas.drift import DriftRecord, DriftTest
from serving.app import create_app

pytestmark = pytest.mark.slow  # a browser, or minutes of writing: tests/unit/test_board.py is the quick part

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURES = os.environ.get("LEPTONFLOW_PICTURES")  # a folder to keep the screenshots in
SEEN: dict[str, tuple[int, int, Any]] = {
    "light": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light"),
}  # fmt: skip


@contextmanager
def served(store: Path) -> Iterator[str]:
    """The address of `leptonflow board` over that store."""
    (port,) = ports.free(1)
    command = [sys.executable, "-m", "cli.main", "board", "--port", str(port), "--store", str(store)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        with httpx.Client(trust_env=False) as client:
            while True:
                try:
                    assert client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
                    break
                except httpx.TransportError:
                    assert process.poll() is None and time.monotonic() < deadline, "the board does not answer"
                    time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def look_for_drift(store: Path) -> None:
    """Record one look that found some."""
    tests = (
        DriftTest(what="metadata", name="brightness", method="ks", effect=0.41, least=0.1, p_value=0.0, n=60, m=1000,
                  drifted=True, sentence="apart", values=(92.31, 124.8)),
        DriftTest(what="features", name=None, method="mmd", effect=0.02, least=0.045, p_value=0.4, n=60, m=1000,
                  drifted=False, sentence="near"),
        DriftTest(what="probabilities", name=None, method="shares", effect=0.03, least=0.1, p_value=1.0, n=60, m=1000,
                  drifted=False, sentence="near", of="cat", values=(0.51, 0.52)),
    )  # fmt: skip
    found = DriftRecord(
        pipeline="pets", number=1, at="2026-11-25T09:00:00.000000Z", version="a1" * 6, verdict="drift", served=1000,
        first=None, last=None, reference=60, tests=tests, triggers=False, quality=(), sentence="drift of brightness",
    )  # fmt: skip
    drift_looks.record(open_store(store.as_uri()), found)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt install chromium brings it")
def test_a_person_finds_their_way_in_light_dark_and_on_a_phone(tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    with tarfile.open(ROOT / "tests" / "stores" / "0.1.0-format-1.tar.gz") as file:
        file.extractall(tmp_path, filter="data")
    store = next(tmp_path.rglob("store.json")).parent
    look_for_drift(store)
    wrong: list[str] = []
    with served(store) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, (width, height, scheme) in SEEN.items():
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=name != "dark"
            )
            page.on("console", lambda message: wrong.append(message.text) if "Policy" in message.text else None)
            page.on("request", lambda request: None if address in request.url or "data:" in request.url
                    else wrong.append(request.url))  # fmt: skip

            def look(what: str, page: object = page, name: str = name) -> None:
                """Nothing is wider than the screen."""
                if name != "dark":
                    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                    assert page.evaluate(wider) <= 0, (what, name)  # type: ignore[attr-defined]
                if PICTURES:
                    page.screenshot(path=Path(PICTURES) / f"{what}-{name}.png", full_page=True)  # type: ignore[attr-defined]

            page.goto(address)
            expect(page.get_by_role("heading", name="Pipelines")).to_be_visible()
            look("overview")
            page.get_by_role("link", name="pets", exact=True).click()
            expect(page.get_by_role("heading", name="Promotions")).to_be_visible()
            expect(page.locator("svg.metric:visible circle").first).to_be_visible()
            look("pipeline")
            page.get_by_role("button", name="Compare").click()
            expect(page.get_by_role("heading", name="Two versions side by side")).to_be_visible()
            look("compare")
            page.get_by_role("link", name="pets").first.click()
            page.get_by_role("link", name="holdout").first.click()
            page.get_by_role("link", name="least certain").click()
            expect(page.locator("figure img").first).to_be_visible()
            look("holdout")
            page.goto(f"{address}/p/pets/quarantine")
            expect(page.locator("figure").first).to_be_visible()
            look("quarantine")
            page.goto(f"{address}/p/pets")
            page.get_by_role("link", name="report").first.click()
            expect(page.get_by_role("heading", name="Gate")).to_be_visible()
            page.goto(f"{address}/p/pets")
            page.locator("#monitoring").get_by_role("link", name="page").click()
            expect(page.get_by_text("↑ higher")).to_be_visible()
            look("drift")
            page.get_by_role("link", name="pets").click()
            expect(page.get_by_role("heading", name="Promotions")).to_be_visible()
            page.close()
        browser.close()
    assert wrong == []


def test_a_page_of_a_pipeline_with_2000_runs_takes_less_than_300_ms(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    benchmark.fill(store, benchmark.RUNS)
    web = TestClient(create_app(store, []))
    first = web.get("/p/bench")
    assert "2,000 runs" in first.text and "page 1 of 40" in first.text
    for path in benchmark.PAGES:
        seconds = []
        for _ in range(5):
            began = time.process_time()  # of this process: others have the cores too
            assert web.get(path).status_code == 200
            seconds.append(time.process_time() - began)
        assert min(seconds) < 0.3, (path, seconds)
