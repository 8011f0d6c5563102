"""The flow's order and branches, and what every task has in common. No stage is run here: its results are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

from leptonflow.core import store_keys
from leptonflow.storage.address import open_store
from schemas.errors import LeptonflowError
from schemas.fit_status import FitStatus
from schemas.records import FitResult
from schemas.stopping import StopEarly
from schemas.training import Training

TRAINING = ["split", "begin", "train-fold", "fit-final", "package"]
WEIGHING = ["find-champion", "evaluate", "infra-validate", "gate", "promote"]


class Told:
    """A stand-in for any record: the attributes that it was given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Script:
    """Stands for `Steps`: notes the tasks' names and answers with what the test has given for each."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.order: list[str] = []
        self.given: dict[str, tuple[Any, ...]] = {}
        self.seconds: dict[str, float] = {}
        self.store = "memory://flow-shape"
        self.config = Told(name="digits", training=Training(folds=3), stop_early_if=None)
        self.config = answers.pop("config", self.config)
        self.names: list[str] = []
        self.story: Any = None
        self.fanned: Any = None

    def __call__(self, task: Any, *args: Any) -> Any:
        self.order.append(task.name)
        self.given[task.name] = args
        answer = self.answers.get(task.name, f"<{task.name}>")
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def fan_out(self, task: Any, each: Sequence[tuple[Any, ...]], on: Any, *args: Any, enough: Any = None) -> Any:
        self.fanned = args[-1]
        if task.name == "fit-final":
            return [self(task, *args)]
        self.order.append(task.name)
        fits = self.answers.get(task.name) or [f"fold {number}" for (number,) in each]
        return next((fits[:count] for count in range(1, len(fits)) if enough(fits[:count])), fits)

    def limit(self, stage: str) -> str:
        return f"limit of {stage}"

    @contextmanager
    def at_work(self) -> Iterator[None]:
        yield

    @contextmanager
    def prepared(self, plan: Any) -> Iterator[None]:
        yield

    def trains_on(self, snapshot: str) -> None:
        self.names.append(snapshot)

    def end(self, story: Any) -> Any:
        self.story = story
        return story


Run = Callable[..., tuple[Script, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the flow's function over given answers; returns the script and the story that it ends with."""
    module = import_module("flows.retrain")

    def run(**answers: Any) -> tuple[Script, Any]:
        script = Script({name.replace("_", "-"): answer for name, answer in answers.items()})
        monkeypatch.setattr(module, "Steps", lambda store, config: script)
        monkeypatch.setattr(module, "load_config", lambda name: None)
        monkeypatch.setattr(module.FreshProcess, "start", lambda fresh: script.order.append("(fresh process)"))
        monkeypatch.setattr(module.Workspace, "check_own_files", lambda *_: script.order.append("(own files)"))
        decided = script.answers.pop("decided", None)
        monkeypatch.setattr(module.early_refusals, "decided", lambda *_: decided)
        return script, module.retrain.fn("digits", "file:///nowhere")

    return run


def plan(waiting: tuple[str, ...] = (), snapshot: Any = "<snapshot>", finished: bool = False) -> Told:
    return Told(waiting=waiting, snapshot=snapshot, finished=finished, run_id="0123456789ab")


GOOD: dict[str, Any] = {
    "preprocess": Told(snapshot="abcdefabcdef"),
    "split": Told(rejected=None),
    "record": {"verdict": "promoted"},
    "unchanged": {"verdict": "unchanged"},
    "reject_data": {"verdict": "rejected-data"},
}
ACCEPTED, REFUSED = Told(batch="a", outcome="accepted"), Told(batch="b", outcome="refused")


def test_the_stages_come_in_their_order_each_long_one_within_its_limit(run: Run) -> None:
    script, story = run(discover=[plan(("a", "b")), plan()], validate=[ACCEPTED, REFUSED], **GOOD)
    head = ["discover", "validate", "validate", "preprocess", "(own files)", "discover"]
    training = [*TRAINING[:2], "(fresh process)", *TRAINING[2:]]
    assert script.order == [*head, *training, *WEIGHING, "record"]
    assert (story.document, story.outcomes) == ({"verdict": "promoted"}, [ACCEPTED, REFUSED])
    assert script.names == ["abcdefabcdef"]
    assert script.given["split"][1] == ["a", "b"]  # whose warnings are told already
    assert ["fold 0", "fold 1", "fold 2"] in script.given["record"]
    assert story.trained.fits == ["fold 0", "fold 1", "fold 2"]
    limited = {name: given[-1] for name, given in script.given.items() if str(given[-1:]).startswith("('limit of")}
    assert limited == {
        "validate": "limit of validate", "preprocess": "limit of preprocess", "fit-final": "limit of train",
        "evaluate": "limit of evaluate", "infra-validate": "limit of infra_validate",
    }  # fmt: skip
    assert script.fanned == "limit of train"


def test_a_finished_run_is_unchanged_and_trains_nothing(run: Run) -> None:
    script, story = run(discover=plan(finished=True), **GOOD)
    assert script.order == ["discover", "preprocess", "(own files)", "discover", "unchanged"]
    assert (story.document["verdict"], story.trained) == ("unchanged", None)


def test_batches_that_are_all_refused_are_rejected_data_where_nothing_else_is_to_do(run: Run) -> None:
    script, story = run(discover=plan(("a",), snapshot=None), validate=REFUSED, **GOOD)
    assert (script.order, story.document["verdict"]) == (["discover", "validate", "reject-data"], "rejected-data")
    script, story = run(discover=plan(("a",), finished=True), validate=REFUSED, **GOOD)
    assert (script.order[-1], story.document["verdict"]) == ("reject-data", "rejected-data")


def test_an_unfinished_run_goes_on_although_a_batch_was_refused(run: Run) -> None:
    script, story = run(discover=plan(("a",)), validate=REFUSED, **GOOD)
    assert (script.order[-1], story.document["verdict"]) == ("record", "promoted")


def test_a_split_that_cannot_be_trained_is_rejected_data_and_begins_no_run(run: Run) -> None:
    script, story = run(discover=plan(), **{**GOOD, "split": Told(rejected="no holdout")})
    assert script.order == ["discover", "preprocess", "(own files)", "discover", "split", "reject-data"]
    assert story.document["verdict"] == "rejected-data"


def test_the_first_folds_of_a_hopeless_candidate_end_the_run(run: Run) -> None:
    fits = [
        FitResult(version="v", fold=n, metrics={"accuracy": 0.1}, epochs=(), files=(), seconds=1, examples=9)
        for n in range(5)
    ]
    rule = StopEarly(metric="accuracy", below=0.5)
    given = Told(name="digits", training=Training(folds=5), stop_early_if=rule)
    answers = {**GOOD, "train_fold": fits, "config": given, "record": {"verdict": "refused"}}
    script, story = run(discover=plan(), **answers)
    assert script.order[-3:] == ["(fresh process)", "train-fold", "record"]
    row, done = script.given["record"][1:3]
    assert (row.rule, done, story.trained) == ("stop_early_if", fits[:3], None)


def test_what_a_killed_attempt_has_decided_by_its_first_folds_is_recorded_and_nothing_is_trained(run: Run) -> None:
    script, story = run(discover=plan(), decided=("<row>", ["fold 1"]), **{**GOOD, "record": {"verdict": "refused"}})
    assert script.order[-2:] == ["begin", "record"]
    assert (script.given["record"][1:3], story.trained) == (("<row>", ["fold 1"]), None)


def test_an_overtaken_decision_is_weighed_again_three_times_at_most(run: Run) -> None:
    from schemas.errors import Overtaken

    script, story = run(discover=plan(), promote=[Overtaken("first"), Overtaken("second"), "<verdict>"], **GOOD)
    assert script.order[-16:] == [*WEIGHING * 3, "record"]
    assert story.document["verdict"] == "promoted"
    _, state = run(discover=plan(), promote=[Overtaken("first"), Overtaken("second"), Overtaken("third")], **GOOD)
    assert (state.type.value, state.message) == ("FAILED", "third.")


def test_an_error_is_the_failed_state_that_says_its_one_line(run: Run) -> None:
    from schemas.errors import TimeLimit

    error = TimeLimit("the stage train took longer than its limit", hint="Raise limits.train")
    _, state = run(discover=plan(), fit_final=error, **GOOD)
    assert (state.type.value, state.name, state.data) == ("FAILED", "Failed", error)
    assert state.message == "the stage train took longer than its limit. Raise limits.train."


def every_task() -> list[Any]:
    from prefect import Task

    import tasks

    modules = [import_module(f"tasks.{found.name}") for found in iter_modules(tasks.__path__)]
    return [value for module in modules for value in vars(module).values() if isinstance(value, Task)]


def test_every_task_tries_again_where_the_store_is_out_of_reach_and_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.cache_policies import NO_CACHE
    from prefect.states import Failed

    from schemas.errors import Damaged, StoreRefused, StoreUnreachable, TimeLimit

    found = every_task()
    assert len(found) >= 14
    for task in found:
        assert (task.retries, task.persist_result, task.cache_policy) == (2, False, NO_CACHE), task.name
        assert task.retry_condition_fn(task, None, Failed(data=StoreUnreachable("gone")))
        for final in (Damaged("not what was recorded"), StoreRefused("wrong credentials"), TimeLimit("too long")):
            assert not task.retry_condition_fn(task, None, Failed(data=final))


def test_a_run_that_is_lost_again_and_again_fails_with_the_numbers(tmp_path: Path) -> None:
    module, store = import_module("flows.retrain"), open_store(tmp_path.as_uri())
    said = FitStatus(
        pipeline="digits", version="c3" * 6, run_id=None, fold=0, at="2026-11-28T12:00:00.000000Z", epoch=1, epochs=2,
        done=0.1, loss=None, metric=None, value=None, examples_per_second=1.0, seconds=1.0, left=None,
        peak_memory=5 * 10**9, values=(),
    )  # fmt: skip
    store.create(store_keys.fit_status_key("digits", said.version, 0, 7), said.model_dump_json().encode())
    module._not_in_vain(6, store.uri, Told(name="digits"))
    with pytest.raises(LeptonflowError, match=r"6 times.*start 7 .*up to 5000 MB of memory, and .* may have \d+ MB"):
        module._not_in_vain(7, store.uri, Told(name="digits"))
    with pytest.raises(LeptonflowError, match=r"start 7 of the same run, and this process may have \d+ MB"):
        module._not_in_vain(7, store.uri, Told(name="others"))
