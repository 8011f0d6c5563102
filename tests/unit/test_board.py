"""The pages of the board as HTTP gives them: made-up runs, and a store of an earlier release with pictures."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from leptonflow.core import store_keys
from leptonflow.monitoring import drift_looks, prediction_log
from leptonflow.registry import manual_decisions
from leptonflow.runs import recording
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from schemas.drift import DriftRecord, DriftTest
from schemas.errors import UsageError
from schemas.served import Served, new_request_id
from serving import api_keys, running
from serving.access import PAGES
from serving.app import Options, create_app
from serving.board import charts, landed_pictures, pages, pipeline_records
from serving.board.batch_records import Row
from serving.board.landed_content import Content
from serving.board.run_records import RunRecords
from serving.service import Service
from tests import served_champions
from tests.run_examples import HOSTILE, Run, make
from tests.small_packages import fit_to_run

ROOT = Path(__file__).parents[2]
EARLIER = ROOT / "tests" / "stores" / "0.1.0-format-1.tar.gz"
PETS = "/p/pets/quarantine"
A, B, C = "a1" * 6, "b1" * 6, "c1" * 6


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with accepted, quarantined and refused batches, and a rollback."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(EARLIER) as file:
        file.extractall(folder, filter="data")
    return next(folder.rglob("store.json")).parent


def client(store: Store) -> TestClient:
    return TestClient(create_app(store, []))


def finish(store: Store, run: Run, **changed: object) -> None:
    recording.record(store, run.config, run.plan, run.results(**changed))


def text(page: str) -> str:
    """What a person reads of a page, in one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


@pytest.fixture(scope="module")
def made() -> Store:
    """digits: A promoted, B refused and promoted by a person, C as A. cats: refused, of hostile names."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    finish(store, make(store, version=A, run_id="a2" * 6))
    manual_decisions.promote(store, "digits", A, "the first", "kim@lab", fit_to_run)
    finish(store, make(store, version=B, run_id="b2" * 6, seed=1, promoted=False, champion=A), champion_after=A)
    manual_decisions.promote(store, "digits", B, "seen on the floor", "kim@lab", fit_to_run)
    finish(store, make(store, version=C, run_id="c2" * 6, batch_size=64, promoted=False), champion_after=B)
    names: dict[str, Any] = {"classes": ("cat", HOSTILE, "dog"), "sources": HOSTILE + "{n}"}
    finish(store, make(store, pipeline="cats", run_id="d2" * 6, promoted=False, **names), champion_after=None)
    return store


@pytest.fixture
def two(store: Store, made: Store) -> Store:
    """What `made` holds, to be changed by one test."""
    store._objects.update(made._objects)  # type: ignore[attr-defined]
    return store


def test_the_first_page_of_an_empty_store_says_what_to_do(store: Store) -> None:
    page = client(store).get("/")
    assert page.status_code == 200
    assert "This store holds no pipeline yet" in page.text


def test_the_first_page_shows_each_pipelines_champion_metric_and_runs(two: Store) -> None:
    page = text(client(two).get("/").text)
    assert "2 pipelines, nothing needs attention" in page
    assert re.search(rf"Champion {B} .* override by kim@lab", page)
    assert re.search(r"accuracy, cross-validation 0\.\d{4} 0\.\d{4} to \d\.\d{4}", page)
    assert "none 1 finished run, none promoted" in page


def test_a_pipeline_without_a_champion_yet_needs_no_attention(two: Store) -> None:
    record, service = pipeline_records.read(two, "cats", RunRecords(two)), Service(served_champions.config())
    service.problem = "the pipeline cats has no champion yet"
    assert not pages.amiss(record, service)
    service.pin = A  # what was pinned cannot be loaded
    assert pages.amiss(record, service)


def test_a_pipelines_page_tells_its_runs_with_the_reason_and_its_promotions(two: Store) -> None:
    page = text(client(two).get("/p/digits").text)
    assert page.index("at_least: accuracy over 3 folds") < page.index(f"{A} becomes the champion")  # the newest first
    assert re.search(rf"2 .{{10,40}} override {B} {A} kim@lab seen on the floor", page)


class Counted(MemoryStore):
    """A store that knows which run manifests were read."""

    def get(self, key: str) -> bytes:
        self.read = [*getattr(self, "read", []), *([key] if re.fullmatch(r"runs/.*/manifest\.json", key) else [])]
        return super().get(key)


def test_a_runs_record_is_read_once(made: Store) -> None:
    store = Counted("memory://counted")
    store._objects.update(made._objects)  # type: ignore[attr-defined]
    web = client(store)
    assert web.get("/").status_code == 200 and len(set(store.read)) == 4
    store.read = []
    assert web.get("/").status_code == web.get("/p/digits").status_code == 200
    assert store.read == []


def test_runs_are_paged_and_kept_within_bounds(two: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.board.views.RUNS_OF_A_PAGE", 1)
    web = client(two)
    first, last = web.get("/p/digits").text, web.get("/p/digits?page=3").text
    assert "page 1 of 3" in first and "page 3 of 3" in last and "older →" in first
    assert f'{"c2" * 6}/report.html">report' in first and f'{"a2" * 6}/report.html">report' in last
    assert web.get("/p/digits?page=-1").text == web.get("/p/digits?page=x").text == web.get("/p/digits").text
    records = RunRecords(two, most=1)
    assert [run.number for run in records.of("digits").runs] == [3, 2, 1]
    assert len(records._kept) == 1


def test_examples_by_their_certainty_have_no_newer_ones(two: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.board.views.EXAMPLES_OF_A_PAGE", 1)
    page = text(client(two).get(f"/p/cats/runs/{'d2' * 6}/holdout").text)
    assert re.search(r"← previous page 1 of \d+ next →", page)


def test_a_long_reason_of_a_run_ends_with_an_ellipsis(two: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.board.run_records.LONGEST_REASON", 26)
    assert "at_least: accuracy over 3 …" in text(client(two).get("/p/digits").text)


@pytest.mark.parametrize("damaged", [b"{}", b"\x00", b'{"document": {"report": "x", "cv": 1}}'])
def test_a_run_whose_record_is_damaged_is_told_and_the_others_are_shown(two: Store, damaged: bytes) -> None:
    web = client(two)
    key = store_keys.run_key("digits", "a2" * 6, "manifest.json")
    two._objects[key] = damaged  # type: ignore[attr-defined]
    for _ in range(2):
        page = web.get("/p/digits")
        assert page.status_code == 200
        assert re.search(f"Damaged {key} is not (what leptonflow writes there|the record of a run)", text(page.text))
        assert "b2" * 6 in page.text
    assert key in web.get("/").text


def test_a_promotions_log_with_a_gap_leaves_the_champion_unknown(two: Store) -> None:
    del two._objects[store_keys.record_key(store_keys.promotions_log("digits"), 1)]  # type: ignore[attr-defined]
    page = text(client(two).get("/p/digits").text)
    assert "Damaged" in page and "Champion none" in page and "Runs" in page


def test_who_served_the_newest_predictions_is_told_also_where_their_log_is_damaged(two: Store) -> None:
    log = prediction_log.PredictionLog(two)
    for version in (A, B, B):
        at = datetime(2026, 11, 25, 8, 30, tzinfo=UTC)
        log.add(Served(
            pipeline="digits", request_id=new_request_id(at), at=at, version=version, predicted="1", probability=0.9,
            outputs=np.array([0.1, 0.9]), metadata={}, features=None, seconds=0.1, runtime="keras", source="predict",
        ))  # fmt: skip
    log.close()
    page = text(client(two).get("/p/digits").text)
    assert re.search(rf"2 by {B} \(the champion\), the last on 25 Nov( 2026)?, 08:30", page) and f"1 by {A}" in page
    key = two.keys("served/digits")[-1]
    two._objects[key] = b"garbage"  # type: ignore[attr-defined]
    page = text(client(two).get("/p/digits").text)
    assert "Damaged the newest file of served/digits cannot be read" in page and "Promotions" in page


def test_the_newest_look_for_drift_is_told_while_its_champion_stays(two: Store) -> None:
    test = DriftTest(
        what="metadata", name="brightness", method="ks", effect=0.4, least=0.1, p_value=0.001, n=400, m=500,
        drifted=True, sentence="brightness is higher",
    )  # fmt: skip
    look = DriftRecord(
        pipeline="digits", number=0, at="2026-11-25T09:00:00.000000Z", version=B, verdict="drift", served=500,
        first=None, last=None, reference=400, tests=(test,), triggers=True, quality=(), sentence=f"brighter {HOSTILE}",
    )  # fmt: skip
    drift_looks.record(two, look.model_copy(update={"verdict": "none", "number": 1, "tests": ()}))
    web = client(two)
    assert "Monitoring" in web.get("/p/digits").text and "Drift" not in text(web.get("/").text)
    drift_looks.record(two, look.model_copy(update={"number": 2}))
    for path in ("/", "/p/digits"):
        page = web.get(path).text
        assert "<b>Drift</b>" in page and "/p/digits/monitoring/2.html" in page and "<script" not in page
    found = web.get("/p/digits/monitoring/2.html")
    assert found.status_code == 200 and "sandbox" in found.headers["content-security-policy"]
    assert '<a href="/p/digits"' in found.text
    assert web.get("/p/digits/monitoring/3.html").status_code == 404
    manual_decisions.promote(two, "digits", A, "again", "kim@lab", fit_to_run)
    assert "<b>Drift</b>" not in web.get("/").text


def test_names_from_outside_are_text(two: Store) -> None:
    web = client(two)
    run = f"/p/cats/runs/{'d2' * 6}"
    for path in ("/", "/p/cats", f"{run}/holdout", f"{run}/report.html"):
        page = web.get(path)
        assert page.status_code == 200, path
        assert "<script" not in page.text and "\u202e" not in page.text
    assert "&lt;script&gt;" in web.get(f"{run}/holdout").text


@pytest.mark.parametrize("path", [
    "/p/%2e%2e%2fstore.json", "/p/nothing", "/p/digits/runs/..%2f..%2fstore.json/report.html",
    "/p/digits/runs/0123456789ab/report.html", "/p/digits/runs/%00/holdout", "/p/digits/batches/..%2f..",
    "/p/digits/batches/no", "/p/digits/batches/first/files/%2e%2e", "/p/digits/studies/..%2fx/page.html",
    "/p/digits/compare", "/p/digits/compare?left=../../x&right=..", "/p/digits/nothing",
    f"/p/digits/compare?left={'0' * 12}&right={A}",
])  # fmt: skip
def test_what_is_not_there_and_what_leads_elsewhere_is_not_found(two: Store, path: str) -> None:
    page = client(two).get(path)
    assert page.status_code == 404
    assert "Traceback" not in page.text


def test_every_page_is_read_only_and_may_run_nothing(two: Store) -> None:
    web = client(two)
    before = dict(two._objects)  # type: ignore[attr-defined]
    for path in ("/", "/p/digits", f"/p/digits/compare?left={A}&right={B}", f"/p/digits/runs/{'a2' * 6}/report.html"):
        page = web.get(path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert web.post(path).status_code == 405
        assert web.head(path).status_code == 200
    assert "style=" not in web.get("/p/digits").text.replace('rel="stylesheet', "")
    assert two._objects == before  # type: ignore[attr-defined]


def test_who_may_read_the_pages(store: Store) -> None:
    key, entry = api_keys.new("kim")
    keys = api_keys.configured({api_keys.VARIABLE: entry})

    def ask(host: str, name: str | None = None, pages: tuple[str, ...] = PAGES, **given: Any) -> Any:
        rules = running.rules(host, keys, insecure=False, readable=pages)
        return TestClient(create_app(store, [], Options(rules)), base_url=f"http://{name or host}").get("/", **given)

    assert ask("127.0.0.1").status_code == ask("127.0.0.1", "localhost:1").status_code == 200
    assert ask("127.0.0.1", "board.example.com").status_code == 401  # a proxy, or a page in a browser
    assert ask("127.0.0.1", pages=()).status_code == 401  # of `serve`
    refused = ask("10.1.2.3")
    assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic")
    assert ask("10.1.2.3", auth=("anybody", key)).status_code == 200
    assert ask("10.1.2.3", auth=(key, "anybody")).status_code == 401
    assert ask("10.1.2.3", headers={"Authorization": "Basic %%%"}).status_code == 401
    rules = running.rules("127.0.0.1", {}, insecure=False)  # a page in a browser under a name that leads here
    assert TestClient(create_app(store, [], Options(rules)), base_url="http://evil.test").get("/").status_code == 421
    with pytest.raises(UsageError, match="can be reached from other machines"):
        running.rules("0.0.0.0", {}, insecure=False)


def test_a_store_that_is_away_is_a_503_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    web = client(open_store(folder.as_uri()))
    folder.write_text("not a folder")
    page = web.get("/")
    assert page.status_code == 503
    assert "The store cannot be reached" in page.text and "cannot be read" in page.text
    folder.unlink()
    assert web.get("/").status_code == 200


def test_two_versions_are_compared_on_the_same_examples(two: Store) -> None:
    web = client(two)
    page = text(web.get(f"/p/digits/compare?left={A}&right={C}").text)  # the same draws
    assert "on the 400 examples" in page
    assert "Right before, wrong after (0)" in page
    assert "config.training.batch_size 32 64" in page
    assert re.search(r"accuracy 0\.\d{4} 0\.\d{4} to 0\.\d{4} 0\.\d{4} 0\.\d{4} to 0\.\d{4} \+0\.0000", page)
    other = text(web.get(f"/p/digits/compare?left={A}&right={B}").text)
    assert "no holdout example in common" in other


def test_a_store_of_an_earlier_release_has_every_page_with_its_pictures(earlier: Path) -> None:
    web = client(open_store(earlier.as_uri()))
    first = web.get("/").text
    seen, waiting = set(), ["/"]
    while waiting:
        path = waiting.pop()
        page = web.get(path)
        seen.add(path)
        assert page.status_code == 200 or "/files/" in path, path
        if "sandbox" not in page.headers["content-security-policy"]:
            found = set(re.findall(r'(?:href|src)="(/[^"]*)"', page.text))
            waiting += sorted({link.replace("&amp;", "&") for link in found} - seen - set(waiting))
    assert "/p/pets" in first
    assert "be between min value 0, max value 255 brightness" in text(web.get("/p/pets/batches/first").text)
    kinds = {path.split("/")[3] for path in seen if path.count("/") > 2}
    assert {"runs", "batches", "quarantine"} <= {kind.partition("?")[0] for kind in kinds}
    holdouts = [web.get(path).text for path in seen if path.endswith("/holdout")]
    assert any("data:image/png;base64," in page for page in holdouts)
    files = [web.get(path) for path in seen if "/files/" in path]
    assert any(file.status_code == 200 and file.headers["content-type"].startswith("image/") for file in files)


def test_a_quarantined_text_is_shown_as_text(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def texts(store: Store, pipeline: str, rows: list[Row]) -> dict[str, Content]:
        return {row.sha256: Content(None, HOSTILE) for row in rows if row.sha256}

    web = client(open_store(earlier.as_uri()))
    assert 'wrong.png<span class="under">third</span>' in web.get(PETS).text, "the file, then its batch"
    page = web.get("/p/pets/batches/third").text
    assert '">dog/<wbr>wrong.png</span>' in page and '<div class="gallery">' in page
    monkeypatch.setattr("serving.board.landed_content.found", texts)
    page = web.get(PETS).text
    assert "<blockquote>&lt;script&gt;alert(1)" in page and "<script" not in page and "\u202e" not in page
    assert '<div class="gallery texts">' in page


def test_no_page_imports_a_training_library(earlier: Path) -> None:
    code = (
        "import sys; from starlette.testclient import TestClient; from serving.app import create_app\n"
        "from leptonflow.storage.address import open_store\n"
        f"web = TestClient(create_app(open_store({earlier.as_uri()!r}), []))\n"
        "assert all(web.get(path).status_code == 200 for path in ('/', '/p/pets', '/p/pets/quarantine'))\n"
        "print([m for m in ('tensorflow', 'keras', 'prefect', 'great_expectations', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_only_pictures_are_sent_as_they_landed() -> None:
    from PIL import Image

    sink = io.BytesIO()
    Image.new("L", (4, 4)).save(sink, "PNG")
    assert landed_pictures.media_type(sink.getvalue()) == "image/png"
    for data in (b"<svg onload=alert(1)>", b"<html><script>", b"%PDF-1.7", b"", b"GIF8", b"RIFF1234WAVE"):
        assert landed_pictures.media_type(data) is None


def test_a_chart_draws_what_it_is_given() -> None:
    assert charts.metric([], 300, 80) == "" and charts.growth([], 300, 80) == ""
    one = charts.Point(0.5, None, None, "promoted", HOSTILE, '"><script>')
    drawn = charts.metric([one, charts.Point(0.5, 0.4, 0.6, "refused", "b", "/")], 300, 80)
    assert drawn.count("<circle") == 2 and drawn.count("whisker") == 1
    assert "<script" not in drawn
    assert "NaN" not in charts.metric([one], 300, 80) and charts.growth([0, 0], 300, 80)
