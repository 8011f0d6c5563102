"""Labels that come after the prediction: recorded by request id, forged ids refused cheaply, quality per version."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from starlette.testclient import TestClient

from cli import monitoring
from leptonflow.data.dataset import dataset_state, part_files
from leptonflow.data.ingest import pending_batches
from leptonflow.monitoring import label_files, labelled_batch, labels, live_quality, served_log
from leptonflow.monitoring.labels import Given
from leptonflow.monitoring.prediction_log import PredictionLog
from leptonflow.registry import packages
from leptonflow.runs import live_evidence
from leptonflow.storage import commit_log, store_identity
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.tables import compaction, queries
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import LeptonflowError, UsageError
from schemas.served import Served, new_request_id
from schemas.serving import Serving
from serving.app import create_app
from tests import run_examples

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
VERSION = "a1" * 6


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store((tmp_path / "store").as_uri())
    store_identity.store_id(store)
    return store


def serve(store: Store, count: int, minute: int = 0, right: float = 1.0) -> list[Served]:
    """`count` logged predictions of the digits, 1 ms apart, the true label the number modulo 10."""
    rows = []
    log = PredictionLog(store, seconds=600)
    for number in range(count):
        at = AT + timedelta(minutes=minute, milliseconds=number)
        said = number % 10 if number < right * count else (number + 1) % 10
        rows.append(Served(
            pipeline="digits", request_id=new_request_id(at), at=at, version=VERSION, predicted=str(said),
            probability=0.91, outputs=np.where(np.arange(10) == said, 0.91, 0.01), metadata={"brightness": number},
            features=np.ones(8, np.float32), seconds=0.001, runtime="keras", source="predict",
        ))  # fmt: skip
        log.add(rows[-1])
    log.close(30)
    assert log.written == count
    return rows


def test_a_label_is_recorded_with_what_was_predicted_and_a_later_one_supersedes_it(store: Store) -> None:
    run_examples.make(store)
    one, two, *_ = serve(store, 3)
    given = [Given(one.request_id, "0"), Given(two.request_id, "5", "ada")]
    found = labels.record(store, "digits", given, "bob")
    assert (found["accepted"], found["refused"], found["rows"]) == (2, 0, [])
    labels.record(store, "digits", [Given(two.request_id, "1")], "carol")
    rows = queries.query(store, 'FROM labels ORDER BY "at", request_id').to_pylist()
    assert [(row["label"], row["who"], row["predicted"]) for row in rows] == [
        ("0", "bob", "0"), ("5", "ada", "1"), ("1", "carol", "1"),
    ]  # fmt: skip
    assert rows[0]["served_at"] == AT and rows[0]["version"] == VERSION and rows[0]["outputs"][0] == pytest.approx(0.91)
    assert [(row["label"], row["who"]) for row in labels.current(store, "digits").to_pylist()] == [
        ("0", "bob"), ("1", "carol"),
    ]  # fmt: skip
    assert compaction.compact(store, "labels", 0)
    assert [row["label"] for row in labels.current(store, "digits").to_pylist()] == ["0", "1"]


def test_labels_whose_reply_was_lost_are_recorded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_examples.make(store)
    (one,) = serve(store, 1)
    create = store.create

    def twice(key: str, data: bytes) -> None:  # what an S3 client does that has lost the first reply
        create(key, data)
        create(key, data)

    monkeypatch.setattr(store, "create", twice)
    assert labels.record(store, "digits", [Given(one.request_id, "0")], "bob")["accepted"] == 1
    assert labels.current(store, "digits").num_rows == 1


def test_labels_for_a_store_that_is_not_there_are_not_called_unknown(tmp_path: Path) -> None:
    away = open_store((tmp_path / "away").as_uri())
    with pytest.raises(LeptonflowError, match="there is no store"):
        labels.record(away, "digits", [Given(new_request_id(AT), "1")], "bob")


def test_a_canary_without_a_label_yet_has_none(store: Store) -> None:
    run_examples.make(store)
    manifest = packages.manifest(store, "digits", VERSION)
    found = live_evidence.labelled(store, "digits", manifest, manifest)
    assert found is not None and found.labels == () and found.candidate.shape == found.champion.shape == (0, 10)


def test_each_wrong_row_is_refused_with_its_reason_and_the_others_count(store: Store) -> None:
    run_examples.make(store)
    (one,) = serve(store, 1)
    given = [
        Given("../../store.json", "1"), Given(new_request_id(AT), "1"), Given(one.request_id, "cat"),
        Given(one.request_id, "1"), Given("f" * 32, "1"), Given(new_request_id(AT + timedelta(days=9)), "1"),
    ]  # fmt: skip
    found = labels.record(store, "digits", given, "bob")
    assert (found["accepted"], found["refused"]) == (1, 5)
    assert found["reasons"] == {"malformed-id": 1, "unknown-id": 3, "wrong-label": 1}
    assert [row["row"] for row in found["rows"]] == [1, 2, 3, 5, 6]
    assert "expected one of 0, 1" in found["rows"][2]["sentence"]
    assert found["rows"][2]["sentence"].endswith("; received cat")


def test_ten_thousand_forged_ids_read_each_file_of_their_time_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minute in range(3):
        serve(store, 5, minute)
    reads: list[str] = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda key: reads.append(key) or get(key))
    random = np.random.default_rng(0)
    times = [AT + timedelta(milliseconds=int(n)) for n in random.integers(0, 86_400_000, 10_000 - 1)]
    given = [Given(new_request_id(at), "1") for at in [AT + timedelta(milliseconds=2), *times]]
    began = time.monotonic()
    found = labels.record(store, "digits", given, "eve")
    assert time.monotonic() - began < 5
    assert (found["accepted"], found["refused"], len(found["rows"])) == (0, 10_000, 100)
    assert len(reads) <= 3
    assert not list(store.list("tables"))


def test_live_quality_is_that_of_the_workload_s_scoring_with_intervals(store: Store) -> None:
    config = run_examples.make(store).config
    rows = serve(store, 400, right=0.9)
    labels.record(store, "digits", [Given(row.request_id, str(n % 10)) for n, row in enumerate(rows)], "ada")
    every, *slices = live_quality.measure(store, config)
    assert (every["version"], every["slice"], every["n"]) == (VERSION, None, 400)
    accuracy = every["metrics"]["accuracy"]
    assert accuracy["value"] == 0.9
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((0.8667, 0.9257), abs=1e-3)  # Wilson's
    assert {"log_loss", "f1"} <= every["metrics"].keys()
    assert [each["slice"] for each in slices] == [f"class={n}" for n in range(10)]
    assert all(list(each["metrics"]) == ["accuracy"] and each["n"] == 40 for each in slices)
    by = config.model_copy(update={"gate": (*config.gate, slices_rule("brightness"))})
    assert [each["n"] for each in live_quality.measure(store, by)[1:]] == [100] * 4


def test_a_metric_that_no_resample_changes_is_told_to_have_no_interval(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_examples.make(store).config
    path = tmp_path / "digits.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    rows = serve(store, 40)  # all right
    labels.record(store, "digits", [Given(row.request_id, str(n % 10)) for n, row in enumerate(rows)], "ada")
    assert monitoring.labels(str(path), store=store.uri) == 0
    every, *rest = capsys.readouterr().out.splitlines()
    assert "accuracy 1.0000 (0.9124 to 1.0000), " in every and "precision 1.0000 (no interval)" in every
    assert rest[-1].startswith("no interval: no resample of these labels changes the metric")

    labels.record(store, "digits", [Given(row.request_id, "9") for row in rows[:9]], "bob")  # they vary now
    assert monitoring.labels(str(path), store=store.uri) == 0
    assert "no interval" not in capsys.readouterr().out


def slices_rule(*by: str) -> Any:
    from schemas.rules import Slices

    return Slices(rule="slices", by=by)


def test_the_newest_rows_come_first_and_none_before_a_time(store: Store) -> None:
    serve(store, 5, 0)
    later = serve(store, 5, 1)
    (table,) = served_log.newest(store, "digits", ["request_id", "predicted"], 5)
    assert table["request_id"].to_pylist() == [row.request_id for row in later]
    since = int((AT + timedelta(milliseconds=3)).timestamp() * 1000)
    found = [len(each) for each in served_log.newest(store, "digits", ["request_id"], 100, since)]
    assert found == [5, 2]


def test_a_csv_of_labels_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffwho,label,request_id\nada,cat, ab \n,dog,cd\n", encoding="utf-8")
    assert label_files.read(path) == [Given("ab", "cat", "ada"), Given("cd", "dog", None)]
    for content in (b"", b"id,label\n1,2\n", b"request_id,label\n\xff,1\n"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not a file of labels"):
            label_files.read(path)
    path.write_text("request_id,label\nab\n")
    assert label_files.read(path) == [Given("ab", "", None)]


def test_what_was_labelled_with_its_inputs_becomes_a_pending_batch(store: Store) -> None:
    """The label is the person's, the example the very one that was served, and a second time it is the same batch."""
    config = run_examples.make(store).config
    workload = catalog.load(config.workload)
    random = np.random.default_rng(0)
    log = PredictionLog(store, seconds=600)
    rows = []
    for number in range(6):
        at = AT + timedelta(milliseconds=number)
        pixels = random.integers(0, 256, config.input, np.uint8).tobytes()
        rows.append(Served(
            pipeline="digits", request_id=new_request_id(at), at=at, version=VERSION, predicted="1", probability=0.5,
            outputs=np.full(10, 0.1), metadata={}, features=None, seconds=0.001, runtime="keras", source="predict",
            inputs=pixels if number else None,
        ))  # fmt: skip
        log.add(rows[-1])
    log.close(30)
    with pytest.raises(UsageError, match="no labelled example"):
        labelled_batch.land(store, config)
    labels.record(store, "digits", [Given(row.request_id, "7") for row in rows[:4]], "ada")
    found = labelled_batch.land(store, config)
    assert (found["examples"], found["without_inputs"], found["already"]) == (3, 1, False)
    assert pending_batches.waiting(store, config, dataset_state.snapshots(store, "digits")) == (found["batch"],)
    files = [store.get(key) for key in store.keys(f"landing/digits/{found['batch']}") if key.endswith(".png")]
    assert sorted(workload.examine(data, config.input).encoded or b"" for data in files) == sorted(
        row.inputs or b"" for row in rows[1:4]
    )
    assert labelled_batch.land(store, config) == {**found, "already": True}
    served = workload.examine(files[0], config.input)
    accepted = part_files.Accepted(served.id, served.id, "7", "1.png", None, None, served.facts, served.encoded)  # type: ignore[arg-type]
    part = part_files.write_part(store, config, "later", dataset_state.preprocessing(config), [accepted])
    assert part is not None
    body = {"batch": "later", "classes": ["7"], "quarantine": None, "parts": [part.model_dump(mode="json")]}
    history = dataset_state.snapshots(store, "digits")
    commit_log.commit(store, history, id="later", kind="batch", body=body, who="t", why="t")
    again = labelled_batch.land(store, config)
    assert (found["known"], again["known"], again["examples"]) == (0, 1, 3)


def test_a_label_that_no_folder_can_be_named_by_is_left_out() -> None:
    for label, named in (("7", True), ("..", False), (".hidden", False), ("a/b", False), ("字" * 85, True)):
        assert labelled_batch.nameable(label) is named
    assert not labelled_batch.nameable("字" * 86), "258 bytes"


def test_a_text_is_a_file_again() -> None:
    workload = catalog.load("text_classification")
    given = Pipeline.model_validate({
        "name": "news", "workload": "text_classification", "input": {},
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}],
    }).input  # fmt: skip
    one = workload.examine("a line\nand more é".encode(), given)
    assert one.encoded is not None and workload.file is not None
    suffix, data = workload.file(one.encoded, given)
    assert suffix in workload.suffixes.held and workload.examine(data, given).id == one.id


def test_a_store_that_hangs_holds_no_request_and_loses_no_label(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_examples.make(store).config.model_copy(update={"serving": Serving(seconds=0.5)})
    one, two = serve(store, 2)
    back, require = threading.Event(), store_identity.require

    def hangs(asked: Store) -> None:
        assert back.wait(60)
        require(asked)

    def give(label: str, request_id: str = one.request_id) -> int:
        answer = client.post("/v1/digits/labels", json={"labels": [{"request_id": request_id, "label": label}]})
        assert answer.status_code == 200 or (answer.headers["retry-after"], answer.status_code) == ("10", 503)
        return answer.status_code

    app = create_app(store, [config])
    with TestClient(app) as client:
        with monkeypatch.context() as away:
            away.setattr(store_identity, "require", hangs)
            began = time.monotonic()
            for number in range(6):  # more than there are threads
                assert give("3" if number else "2") == 503
            assert time.monotonic() - began < 30
        # Those of before still hang, and what waits for their threads is not answered either.
        assert give("4", two.request_id) == 503
        back.set()
        assert give("5") == 200
        app.state.recorder.shutdown()  # those that hung have ended
    kept = labels.current(store, "digits")
    assert dict(zip(kept["request_id"].to_pylist(), kept["label"].to_pylist(), strict=True)) == {one.request_id: "5"}
    assert queries.query(store, "SELECT label FROM labels ORDER BY label").to_pylist() == [
        {"label": label} for label in ("2", "3", "3", "3", "5")
    ]  # fmt: skip


def test_labels_over_http(store: Store) -> None:
    config = run_examples.make(store).config
    (one,) = serve(store, 1)
    with TestClient(create_app(store, [config])) as client:
        body = {"labels": [{"request_id": one.request_id, "label": "3"}, {"request_id": "x", "label": "3"}]}
        answer = client.post("/v1/digits/labels", json=body)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["accepted"], answer.json()["reasons"]) == (1, {"malformed-id": 1})
        assert client.post("/v1/cats/labels", json=body).status_code == 404
        for wrong in ({}, {"labels": []}, {"labels": [{"request_id": "x"}]}, {"labels": [{}] * 10_001}):
            assert client.post("/v1/digits/labels", json=wrong).status_code == 422
    assert labels.current(store, "digits")["label"].to_pylist() == ["3"]
