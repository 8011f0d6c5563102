"""Time limits: what the YAML says, where the work looks at its deadline, and that no id depends on them."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from leptonflow.core import deadlines, progress, request_process
from leptonflow.core.deadlines import Limit
from leptonflow.data.dataset import holdout_split
from leptonflow.evaluation import fresh_process, load_check
from leptonflow.runs import planning
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError, TimeLimit
from schemas.records import SnapshotRef

BASE: dict[str, Any] = {
    "name": "p", "workload": "image_classification", "input": [8, 8, 1],
    "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}],
}  # fmt: skip
STAGES = {"validate": 3600, "preprocess": 3600, "train": 86400, "evaluate": 3600, "infra_validate": 600}


def config(**changed: Any) -> Pipeline:
    return parse({**BASE, **changed}, where="p.yaml", folder=Path("."))


def over(stage: str = "train") -> Limit:
    """A limit whose deadline has just passed."""
    return Limit(stage, 2.5, time.time() - 0.001)


def test_each_stage_has_a_limit_and_the_yaml_can_set_it() -> None:
    assert {stage: config().limits.of(stage) for stage in STAGES} == STAGES
    changed = config(limits={"validate": 7, "train": 0.5}).limits
    assert (changed.of("validate"), changed.of("train"), changed.of("evaluate")) == (7, 0.5, 3600)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (
            {"serving": {"monitor": {"rws": 5}}},
            r"unknown key serving\.monitor\.rws.*one of schedule, after, rows, retrain.*mean rows",
        ),
        ({"limits": {"trian": 5}}, r"unknown key limits\.trian.*one of validate, preprocess, train.*mean train"),
        ({"limits": {"train": 0}}, r"limits\.train is not valid"),
        ({"limits": {"train": float("inf")}}, r"limits\.train is not valid"),
        ({"limits": {"validate": "1h"}}, r"limits\.validate is not valid"),
        ({"notify": {"block": "ops"}}, r"notify\.block is not valid.*type/name, such as custom-webhook/ops"),
        ({"notify": {"block": "a/b", "on": ["promotion"]}}, r"notify\.on\.0 is not valid.*'failure'"),
        ({"notify": {"block": "a/b", "on": []}}, r"notify\.on is not valid.*at least one"),
        ({"notify": {"on": ["failure"]}}, r"notify\.block is missing"),
        ({"notify": {"block": "a/b", "to": "me"}}, r"unknown key notify\.to.*one of block, on"),
    ],
)
def test_a_wrong_key_is_named_with_what_was_expected(document: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        config(**document)


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"training": {"seed": 2**32}}, "training.seed"),
        ({"training": {"epochs": 10**20}}, "training.epochs"),
        ({"training": {"batch_size": 2**63}}, "training.batch_size"),
        ({"training": {"folds": 2**63}}, "training.folds"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate"),
        ({"model": {"dense": 2**63}}, "model.dense"),
        ({"model": {"filters": [2**63]}}, "model.filters.0"),
        ({"limits": {"train": 1e300}}, "limits.train"),
        ({"debounce": float("inf")}, "debounce"),
    ],
)
def test_a_number_that_no_machine_counts_to_is_refused_before_any_work(document: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{key} is not valid"):
        config(**document)


def test_the_greatest_seed_is_one_that_the_folds_take() -> None:
    greatest = config(training={"seed": 2**32 - 1}).training
    assert holdout_split.folds(np.array([0, 0, 1, 1]), 2, greatest.seed).tolist().count(0) == 2


def test_notify_has_four_ends_by_default() -> None:
    found = config(notify={"block": "custom-webhook/ops"}).notify
    assert found is not None and found.on == ("failure", "refused", "promoted", "waiting")
    assert config().notify is None


def test_what_init_writes_shows_both_keys_with_their_defaults(tmp_path: Path) -> None:
    from cli import pipeline_template

    text = pipeline_template.write(str(tmp_path / "mine"), None).read_text()
    lines = [line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# limits:", "# notify:"))]
    shown = yaml.safe_load("\n".join(lines).replace(" on:", ' "on":'))  # YAML 1.1 takes a bare `on` for true
    assert shown["limits"] == STAGES
    parsed = config(**shown)
    assert parsed.limits == config().limits
    assert parsed.notify is not None and parsed.notify == config(notify={"block": "custom-webhook/ops"}).notify


def test_no_id_and_no_document_depends_on_limits_and_notifications() -> None:
    plain = config()
    other = config(limits={"train": 1, "validate": 2}, notify={"block": "custom-webhook/ops", "on": ["promoted"]})
    snapshot = SnapshotRef(
        pipeline="p", number=1, snapshot="5" * 12, content="5" * 64, classes=("a", "b"), preprocessing="p" * 12,
        holdout=0.2, parts=(), batches=("b",), examples=9,
    )  # fmt: skip
    code = {"data": "d", "train": "t", "gate": "g"}
    assert planning.ids(plain, snapshot, code, 0) == planning.ids(other, snapshot, code, 0)
    assert plain.model_dump(mode="json") == other.model_dump(mode="json")
    assert load_check.record_key("p", "v", "m", plain) == load_check.record_key("p", "v", "m", other)


def test_work_past_its_deadline_ends_at_its_next_report_and_names_stage_limit_and_key() -> None:
    seen: list[int] = []
    limit = deadlines.start(config(limits={"train": 0.05}), "train")
    with pytest.raises(TimeLimit) as caught, deadlines.within(limit):
        for step in range(1_000_000):
            progress.report("fold 1", step, 1_000_000)
            seen.append(step)
    assert seen
    assert caught.value.line() == (
        "the stage train took longer than its limit. Expected: at most 0.05 s (limits.train in the "
        "pipeline's YAML). Raise limits.train if the work needs it; the next run resumes from what is done."
    )
    progress.report("fold 1", 1, 1)  # outside of the block there is no limit


def test_a_stage_that_begins_past_its_deadline_does_nothing() -> None:
    with pytest.raises(TimeLimit), deadlines.within(over()):
        pytest.fail("the block ran")


def test_predictions_look_at_the_deadline_too() -> None:
    from leptonflow.keras_runtime import keras_models

    class Model:
        output_shape = (None, 2)
        calls = 0

        def predict_on_batch(self, batch: Any) -> Any:
            self.calls += 1
            time.sleep(0.02)
            return np.zeros((len(batch), 2))

    model = Model()
    limit = Limit("evaluate", 0.05, time.time() + 0.05)
    with pytest.raises(TimeLimit, match="evaluate"), deadlines.within(limit):
        keras_models.predict(model, np.zeros((256 * 100, 2, 2, 1), np.uint8))
    assert 0 < model.calls < 100


def test_a_fresh_process_that_never_answers_ends_with_the_limit(tmp_path: Path) -> None:
    silent = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; sys.stdin.readline(); time.sleep(60)"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    errors = (tmp_path / "errors").open("wb")
    fresh = fresh_process.FreshProcess()
    fresh._child = request_process._Child(silent, errors)
    with pytest.raises(TimeLimit, match=r"infra_validate.*at most 0.2 s \(limits\.infra_validate"):
        fresh.ask({}, deadlines.start(config(limits={"infra_validate": 0.2}), "infra_validate"))
    assert silent.poll() is not None and errors.closed


def test_every_listener_hears_of_the_work_until_its_block_ends() -> None:
    outer: list[object] = []
    inner: list[object] = []
    with progress.listen(lambda *told: outer.append(told), outer.append):
        with progress.listen(lambda *told: inner.append(told)):
            progress.report("fold 1", 1, 2)
            progress.note("reused")
        progress.report("fold 1", 2, 2)
    progress.report("fold 1", 3, 3)
    assert outer == [("fold 1", 1, 2), "reused", ("fold 1", 2, 2)]
    assert inner == [("fold 1", 1, 2)]


def test_a_stop_holds_for_the_whole_of_the_outermost_listener() -> None:
    with progress.listen() as stop:
        stop()
        with progress.listen(), pytest.raises(progress.Stopped):
            progress.report("fold 1", 1, 2)
    with progress.listen():
        progress.report("fold 1", 1, 2)


def test_a_stop_ends_the_threads_of_its_own_work_and_no_other_work_of_the_process() -> None:
    """A task's thread has a copy of its flow's context; a second run of the same process has a context of its own."""
    with ThreadPoolExecutor(1) as thread, progress.listen() as stop:
        context = copy_context()
        thread.submit(context.run, progress.pulse).result()
        stop()
        with pytest.raises(progress.Stopped):
            thread.submit(context.run, progress.pulse).result()
        thread.submit(progress.pulse).result()


def test_a_patient_store_tries_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    from leptonflow.storage import s3

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert s3.connection().patience == s3.RETRY_SECONDS
    with s3.patient(30):
        assert s3.connection().patience == 30
    assert s3.connection().patience == s3.RETRY_SECONDS
