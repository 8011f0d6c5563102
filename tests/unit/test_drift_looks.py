"""A look for drift, from the dataset and the prediction log to its record, and when it asks for a retraining."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leptonflow.core import clock, parquet, store_keys
from leptonflow.core.pipeline_files import load_config
from leptonflow.data.dataset import dataset_contents, dataset_state, part_files
from leptonflow.evaluation import champion_predictions
from leptonflow.monitoring import drift_looks, drift_records, drift_tests, references
from leptonflow.monitoring.prediction_log import PredictionLog
from leptonflow.registry import manual_decisions, served_models
from leptonflow.reports import drift_page
from leptonflow.runs import integrity
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.tables import queries, table_files
from leptonflow.workloads import catalog
from leptonflow.workloads.image_classification import input_statistics
from schemas import tables
from schemas.config import Pipeline
from schemas.drift import DriftRecord, DriftTest
from schemas.errors import Damaged, NotFound
from schemas.served import Served, new_request_id
from schemas.serving import Serving
from tests import served_champions, small_packages

VERSION = "a1" * 6
COUNT = 300


def examples(seed: int, count: int, lighter: float = 1.0) -> list[Any]:
    """Examined images, 12 x 12 grey, some lighter than others."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        values = random.normal(random.uniform(60, 160) * lighter, 20, (12, 12)).clip(0, 255).astype(np.uint8)
        found.append(catalog.load("image_classification").examine(_png(values), served_champions.SHAPE))
    return found


def _png(values: Any) -> bytes:
    from io import BytesIO

    sink = BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    return sink.getvalue()


def commit(store: Store, config: Pipeline) -> None:
    """A dataset of COUNT examples of two classes."""
    found = examples(0, COUNT)
    accepted = [
        part_files.Accepted(each.id, each.id, str(n % 2), f"{n}.png", None, None, each.facts, each.encoded)
        for n, each in enumerate(found)
    ]
    preprocessing = dataset_state.preprocessing(config)
    part = part_files.write_part(store, config, "first", preprocessing, accepted)
    assert part is not None
    body = {
        "batch": "first", "holdout": config.holdout.fraction, "classes": ["0", "1"], "labels": ["0", "1"],
        "preprocessing": preprocessing, "parts": [part.model_dump(mode="json")], "examples": COUNT,
        "content": dataset_contents.content_digest([(each.id, each.label) for each in accepted], preprocessing),
    }  # fmt: skip
    log = dataset_state.snapshots(store, config.name)
    commit_log.commit(store, log, id="first", kind="batch", body=body, who="t", why="t")


def serve(
    store: Store, config: Pipeline, seed: int, count: int, lighter: float = 1.0, statistics: bool = True,
    ahead: timedelta = timedelta(),
) -> None:  # fmt: skip
    """`count` more predictions of the champion, logged as the server does; or as one of an earlier release did.

    ahead: how far its clock is.
    """
    champion = champion_predictions.current(store, config.name)
    model = served_models.load(store, config.name, champion.version)
    workload = catalog.load(config.workload)
    found = examples(seed, count, lighter)
    pixels = workload.codec.stack([each.encoded for each in found], config.input)
    outputs, features = model.predict_encoded(model.encode(pixels))
    noise = input_statistics.of(pixels, served_champions.SHAPE)["noise"]
    log = PredictionLog(store, seconds=600)
    start = datetime.now(UTC) + timedelta(seconds=seed) + ahead
    for n, each in enumerate(found):
        at = start + timedelta(milliseconds=n)
        predicted, probability = workload.target.answer(outputs[n], model.classes)
        log.add(Served(
            pipeline=config.name, request_id=new_request_id(at), at=at, version=champion.version, predicted=predicted,
            probability=probability, outputs=outputs[n], metadata=each.facts,
            features=None if features is None else features[n], seconds=0.001, runtime="keras", source="predict",
            input_statistics={"noise": float(noise[n])} if statistics else None,
        ))  # fmt: skip
    log.close(30)
    assert log.written == count


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def test_from_what_was_served_to_a_record_that_asks_once(store: Store) -> None:
    config = served_champions.config()
    with pytest.raises(NotFound, match="no champion"):
        drift_looks.examine(store, config)
    commit(store, config)
    served_champions.promote(store, VERSION, served_champions.model(0))
    assert drift_looks.unseen(store, config.name, 500) == 0
    serve(store, config, 1, 30)
    few = drift_looks.record(store, drift_looks.examine(store, config, may_ask=True))
    assert (few.verdict, few.served, few.number, few.triggers) == ("too-few", 30, 1, False)
    serve(store, config, 2, 300)
    assert drift_looks.unseen(store, config.name, 500) == 300
    same = drift_looks.record(store, drift_looks.examine(store, config, may_ask=True))
    assert (same.verdict, same.served, same.triggers) == ("none", 330, False), same.sentence
    # What is a matter of the file alone is not compared, nor is what never varies.
    assert {test.key for test in same.tests} == {
        "metadata.brightness", "metadata.contrast", "inputs.noise", "predictions", "probabilities", "confidence",
        "features",
    }  # fmt: skip
    serve(store, config, 3, 300, lighter=1.4)
    for number, may_ask, asked in ((3, False, False), (4, True, True), (5, True, False)):
        found = drift_looks.record(store, drift_looks.examine(store, config, 300, may_ask))
        assert (found.verdict, found.number, found.triggers) == ("drift", number, asked), found.sentence
        assert "metadata.brightness" in found.drifted and "features" in found.drifted
    sql = "SELECT number, triggers, served_value > reference_value AS up FROM drift WHERE drifted"
    rows = queries.query(store, f"{sql} AND name = 'brightness'").to_pylist()
    assert sorted((row["number"], row["triggers"]) for row in rows) == [(3, False), (4, True), (5, False)]
    assert all(row["up"] for row in rows)
    said = {test.key: test.sentence for test in found.tests}
    assert "; mean 15" in said["metadata.brightness"] and ", of the reference 11" in said["metadata.brightness"]
    assert "; mean probability of " in said["probabilities"] and "; share of " in said["predictions"]
    page = Path(drift_looks.page(store, found)).read_text()
    assert "metadata.<wbr>brightness" in page and "↑ higher" in page
    served_champions.promote(store, "b2" * 6, served_champions.model(1))
    assert drift_looks.examine(store, config, may_ask=True).verdict == "too-few", "those are another version's"


def test_a_wrong_clock_of_a_server_delays_no_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    config = served_champions.config().model_copy(
        update={"serving": Serving.model_validate({"monitor": {"after": 60, "rows": 60}})}
    )
    commit(store, config)
    served_champions.promote(store, VERSION, served_champions.model(0))
    serve(store, config, 1, 80, ahead=timedelta(days=400))
    told = drift_looks.due(store, config)
    assert isinstance(told, str) and told.startswith(f"{drift_looks.TOO_FEW}; predictions dated up to 20")
    serve(store, config, 2, 60)
    found = drift_looks.due(store, config)
    assert isinstance(found, DriftRecord) and found.served == 60 and "the clock of a server" in found.sentence
    assert found.last is not None and datetime.fromisoformat(found.last) < datetime.now(UTC) + timedelta(minutes=1)
    # As a release before looked at them: the mark lies next year.
    drift_looks.record(store, found.model_copy(update={"last": (datetime.now(UTC) + timedelta(days=400)).isoformat()}))
    assert drift_looks.unseen(store, config.name, 500) == 0
    serve(store, config, 700, 70)  # ten minutes after that look
    assert drift_looks.unseen(store, config.name, 500) == 0
    monkeypatch.setattr(clock, "now", lambda: (datetime.now(UTC) + timedelta(minutes=15)).isoformat())
    assert drift_looks.unseen(store, config.name, 500) == 70
    assert isinstance(drift_looks.due(store, config), DriftRecord)


def test_the_reference_is_of_examples_that_the_champion_did_not_learn_from(store: Store) -> None:
    config = served_champions.config()
    commit(store, config)
    served_champions.promote(store, VERSION, served_champions.model(0))
    champion = champion_predictions.current(store, config.name)
    found, held_out = references.of(store, config, champion)
    assert 40 < held_out < 80, "about a fifth"
    assert found.features is not None and found.confidence is not None
    assert len(found.features) == len(found.confidence) == len(found.predicted) == held_out
    assert {len(values) for values in found.metadata.values()} == {COUNT}
    assert "format" not in found.metadata and "bytes" not in found.metadata
    assert found.outputs is not None and len(found.outputs) == held_out
    before = {key: store.get(key) for key in store.keys("monitoring")}
    again, _ = references.of(store, config, champion)
    assert np.array_equal(again.features, found.features)  # type: ignore[arg-type]
    assert {key: store.get(key) for key in store.keys("monitoring")} == before, "it is made once"
    (key,) = before
    path = Path(store.path(key) or "")
    path.chmod(0o644)
    path.write_bytes(b"garbage")
    with pytest.raises(Damaged, match=key):
        references.of(store, config, champion)


def test_predictions_logged_before_the_numbers_of_the_inputs_are_not_compared_by_these(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = served_champions.config()
    commit(store, config)
    served_champions.promote(store, VERSION, served_champions.model(0))
    with monkeypatch.context() as before:  # a file of an earlier release has no such column
        names = [name for name in tables.schema("served").names if name != "input_statistics"]
        before.setattr(table_files, "encode", lambda table: table_files.encode_as_text(table.select(names)))
        serve(store, config, 1, 60, statistics=False)
    found = drift_looks.examine(store, config)
    assert (found.verdict, found.served) == ("none", 60) and "inputs.noise not compared" in found.sentence
    assert "inputs" not in {test.what for test in found.tests}
    serve(store, config, 2, 60)
    found = drift_looks.examine(store, config)
    assert (found.served, "not compared" in found.sentence) == (120, False)
    assert {test.key: test.m for test in found.tests}["inputs.noise"] == 60


def test_the_reference_of_a_large_dataset_is_a_sample_by_the_ids(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    config = served_champions.config()
    commit(store, config)
    served_champions.promote(store, VERSION, served_champions.model(0))
    whole, held_out = references.of(store, config, champion_predictions.current(store, config.name))
    made = parquet.read(store.get(store_keys.drift_reference_key(config.name, VERSION)))
    for name, value in (("MOST_HELD_OUT", 9), ("MOST_OTHERS", 20), ("ROWS", 7), ("READ", 1_000)):
        monkeypatch.setattr(references, name, value)
    served_champions.promote(store, "b2" * 6, served_champions.model(0))
    few, count = references.of(store, config, champion_predictions.current(store, config.name))
    sample = parquet.read(store.get(store_keys.drift_reference_key(config.name, "b2" * 6)))
    assert (count, sample.num_rows) == (9, 29) and held_out > 9
    ids = [made["example_id"].to_pylist()[start : start + most] for start, most in ((0, 9), (held_out, 20))]
    assert sample["example_id"].to_pylist() == ids[0] + ids[1] == sorted(ids[0]) + sorted(ids[1])
    assert few.inputs["noise"] == whole.inputs["noise"][:9]
    assert few.outputs is not None and whole.outputs is not None
    assert np.allclose(few.outputs, whole.outputs[:9], atol=1e-5)


def record(version: str, *drifted: str, triggers: bool = False) -> DriftRecord:
    tests = tuple(
        DriftTest(
            what="metadata", name=name, method="ks", effect=0.5, least=0.1, p_value=0.0, n=99, m=99, drifted=True,
            sentence="apart",
        )
        for name in drifted
    )  # fmt: skip
    return DriftRecord(
        pipeline="p", number=1, at="", version=version, verdict="drift" if drifted else "none", served=99, first=None,
        last=None, reference=99, tests=tests, triggers=triggers, quality=(), sentence="",
    )  # fmt: skip


def test_the_page_shows_a_drift_of_the_spread_alone() -> None:
    values = np.random.default_rng(0).normal(0, 10, 1_000)
    for factor, word in ((2.0, "↔ wider"), (0.5, "↔ narrower")):
        around, served = ({"x": list(100 + each)} for each in (values, factor * values))
        (test,) = drift_tests.compare(drift_tests.Observed(around), drift_tests.Observed(served))
        assert test.drifted and test.spreads == pytest.approx((values.std(), factor * values.std()))
        record = DriftRecord(
            pipeline="p", number=1, at="2026-01-01T00:00:00Z", version="v", verdict="drift", served=1_000, first=None,
            last=None, reference=1_000, tests=(test,), triggers=False, quality=(), sentence="s",
        )  # fmt: skip
        page = drift_page.render(record).decode()
        assert word in page and all(f"± {spread:.4g}" in page for spread in test.spreads or ())
        before = test.model_copy(update={"spreads": None})  # as releases before recorded it
        assert "±" not in drift_page.render(record.model_copy(update={"tests": (before,)})).decode()


def test_the_page_says_that_a_metric_has_no_interval() -> None:
    metrics = {"precision": {"value": 1.0, "low": None, "high": None}, "f1": {"value": 1.0, "low": 0.9, "high": 1.0}}
    row = {"version": "v", "slice": None, "n": 40, "metrics": metrics, "confidence": 0.95}
    page = drift_page.render(record("v").model_copy(update={"quality": (row,)})).decode()
    assert page.count("none: no resample changes it") == 1 and "0.9000 to 1.0000" in page


def test_one_cause_asks_once_for_each_champion() -> None:
    asks = drift_records.asks
    first = record("a", "brightness", "contrast", triggers=True)
    before = record("a", "width").model_copy(update={"asked": tuple(drift_records.asked(record("a"), first))})
    assert not asks(record("a", "brightness"), first)
    assert not asks(record("a", "brightness"), before), "each record knows what was asked before it"
    assert not asks(record("a", "contrast", "width"), before), "drifts that share a test are one cause"
    assert asks(record("a", "width"), before), "that was seen, and did not ask"
    assert asks(record("b", "brightness"), before)
    assert not asks(record("b"), before) and not asks(first, first)


def test_a_drift_that_a_person_found_is_asked_about_by_the_next_scheduled_look(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = served_champions.config(monitor={"after": 60, "rows": 60})
    commit(store, config)
    served_champions.promote(store, VERSION, served_champions.model(0))
    serve(store, config, 0, 60, lighter=1.5)
    by_hand = drift_looks.record(store, drift_looks.examine(store, config, 60))
    assert (by_hand.verdict, by_hand.triggers) == ("drift", False)
    assert drift_looks.unseen(store, config.name, 60) == 0
    silent = served_champions.config(monitor={"after": 60, "rows": 60, "retrain": False})
    assert drift_looks.due(store, silent) == drift_looks.TOO_FEW
    found = drift_looks.due(store, config)
    assert isinstance(found, DriftRecord) and found.triggers
    asked = drift_looks.record(store, found)
    assert asked.triggers and drift_looks.due(store, config) == drift_looks.TOO_FEW, "it asks once"
    assert drift_looks.record(store, found) == asked, "made again after a lost reply, it finds its own record"
    again = drift_looks.record(store, drift_looks.examine(store, config, 60))
    assert set(again.asked) >= asked.drifted and drift_looks.due(store, config) == drift_looks.TOO_FEW
    served_champions.promote(store, "b2" * 6, served_champions.model(1))
    assert drift_looks.due(store, config) == drift_looks.TOO_FEW, "that was about another champion"
    serve(store, config, 6_000, 60)
    manual_decisions.rollback(store, config.name, VERSION, "t", "t", small_packages.fit_to_run)
    monkeypatch.setattr(clock, "now", lambda: "2999-01-01T00:00:00.000000Z")
    none = drift_looks.due(store, config)  # a server goes on with the other version
    assert isinstance(none, DriftRecord) and drift_looks.record(store, none).served == 0
    assert drift_looks.due(store, config) == drift_looks.TOO_FEW, "no prediction came since"
    serve(store, config, 5_000, 60)
    assert drift_looks.examine(store, config, 60).served == 60, "the newest of the champion, not of all"


def test_the_command_says_what_was_found(store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from cli.main import main

    path = tmp_path / "digits.yaml"
    path.write_text(
        "name: digits\nworkload: image_classification\ninput: [12, 12, 1]\n"
        "gate: [{rule: at_least, metric: accuracy, value: 0.5}]\n"
        "serving: {monitor: {rows: 300}, log_inputs: {rate: 0.1}}\n"
    )
    config = load_config(str(path))
    commit(store, config)
    served_champions.promote(store, VERSION, served_champions.model(0))
    serve(store, config, 1, 300, lighter=1.4)
    assert main(["monitor", str(path), "--store", store.uri, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["served"], document["triggers"]) == ("drift", 300, False)
    assert Path(document["page"]).is_file()
    assert main(["monitor", str(path), "--store", store.uri]) == 3
    assert "drift of" in capsys.readouterr().out
    damaged = Path(store.path("monitoring/digits/records/00000001.json") or "")
    damaged.chmod(0o644)
    damaged.write_bytes(b"{")
    found = integrity.verify(store, ["digits"], lambda *_: None)
    assert "monitoring/digits/records/00000001.json" in [each["key"] for each in found["damaged"]]


def test_what_other_models_predicted_of_the_training_examples_is_no_part_of_the_reference(store: Store) -> None:
    """References recorded before have the folds' predictions, which favour other classes than the champion's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    config = served_champions.config()
    commit(store, config)
    served_champions.promote(store, VERSION, served_champions.model(0))
    found, held_out = references.of(store, config, champion_predictions.current(store, config.name))
    made = parquet.read(store.get(store_keys.drift_reference_key(config.name, VERSION)))
    rows = [{**row, "predicted": row["predicted"] or "x"} for row in made.to_pylist()]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=made.schema), sink)
    store.create(store_keys.drift_reference_key(config.name, "b2" * 6), bytes(sink.getvalue()))
    served_champions.promote(store, "b2" * 6, served_champions.model(0))
    again, _ = references.of(store, config, champion_predictions.current(store, config.name))
    assert again.predicted == found.predicted and len(found.predicted) == held_out < made.num_rows
