"""What is advised after `baseline` refused: the examples that are lacking, and what the folds' curves say."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest
from rich.console import Console

from cli import show
from leptonflow.core import store_keys
from leptonflow.gate import explanation
from leptonflow.runs import recording, refusal_advice, run_explanation, unchanged
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.records import EpochValue, FitResult, RuleResult, Verdict
from tests.run_examples import make

VERSION = "a1" * 6
STILL = "the folds were still learning when they ended after 4 epochs"
LEARNED = "The folds had learned their training examples when they ended"
WORSE = "The folds no longer improved when they ended"


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def refused(
    value: float = 25 / 60, bound: float = 29 / 60, rule: str = "baseline", metric: str = "accuracy"
) -> Verdict:
    row = RuleResult(rule=rule, metric=metric, value=value, bound=bound, passed=False, sentence="s", n=60)
    return Verdict(
        run_id="b2" * 6, version=VERSION, verdict="refused", rules=(row,), sentence="s", champion=None, against=0
    )


def folds(store: Store, training: Sequence[float], others: Sequence[float]) -> None:
    """Two folds with these losses, after each epoch."""
    for fold in range(2):
        epochs = tuple(
            EpochValue(epoch=number, metric=metric, value=value + 0.01 * fold, seconds=1.0)
            for number, pair in enumerate(zip(training, others, strict=True), start=1)
            for metric, value in zip(("loss", "val_loss"), pair, strict=True)
        )
        fit = FitResult(version=VERSION, fold=fold, metrics={}, epochs=epochs, files=(), seconds=1.0, examples=9)
        store.create(store_keys.fit_key("digits", VERSION, fold, "manifest.json"), fit.model_dump_json().encode())


@pytest.mark.parametrize(
    ("training", "others", "told"),
    [
        ((1.1, 1.0, 0.9, 0.8), (1.1, 1.06, 1.05, 1.04), f". {STILL.replace('the', 'The', 1)}"),
        ((1.1, 0.6, 0.3, 0.1), (1.1, 1.06, 1.05, 1.04), LEARNED),  # little is left to learn
        ((1.1, 1.0, 0.9, 0.8), (1.1, 1.06, 1.05, 1.07), WORSE),  # and what is learned is of no use
    ],
)
def test_the_curves_tell_whether_more_epochs_may_help(
    store: Store, training: Sequence[float], others: Sequence[float], told: str
) -> None:
    folds(store, training, others)
    found = refusal_advice.advice(store, "digits", refused())
    assert found is not None and told in found and found.endswith(f"{refusal_advice.PAGE}.")
    assert found.startswith("The candidate predicts 25 of 60 holdout examples correctly, and 30 are required. ")
    assert (STILL in found.lower()) == ("try more `training.epochs` first" in found)
    of_another = refusal_advice.advice(store, "digits", refused(1.2, 1.1, metric="log_loss"))
    assert of_another is not None and "holdout examples" not in of_another and told.removeprefix(". ") in of_another


@pytest.mark.parametrize("rule", ["at_least", "fold_spread"])
def test_a_first_candidate_has_it_whichever_of_the_first_rules_refused(store: Store, rule: str) -> None:
    folds(store, (1.1, 1.0, 0.9, 0.8), (1.1, 1.06, 1.05, 1.04))
    told = refusal_advice.advice(store, "digits", refused(rule=rule))
    assert told is not None and STILL in told.lower() and told.endswith(f"{refusal_advice.PAGE}.")
    assert "holdout" not in told  # neither rule counts its examples
    later = refused(rule=rule).model_copy(update={"champion": "c3" * 6})
    assert refusal_advice.advice(store, "digits", later) is None


def test_other_refusals_have_no_such_advice(store: Store) -> None:
    folds(store, (1.1, 1.0), (1.1, 1.0))
    assert refusal_advice.advice(store, "digits", refused(rule="against_champion")) is None
    passed = refused().rules[0].model_copy(update={"passed": True})
    assert refusal_advice.advice(store, "digits", refused().model_copy(update={"rules": (passed,)})) is None
    assert refusal_advice.advice(store, "another", refused(metric="log_loss")) is None  # nothing is known of it


def test_explain_and_retrain_give_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(store, promoted=False)
    row = refused().rules[0]
    verdict = run.verdict.model_copy(update={"rules": (*run.verdict.rules, row)})
    document = recording.record(store, run.config, run.plan, run.results(verdict=verdict))
    monkeypatch.setattr(refusal_advice, "advice", lambda *_: "Try this.")
    assert run_explanation.explain(store, run.config)["advice"] == "Try this."
    monkeypatch.setattr(show, "terminal", lambda: Console(width=120))
    show.retrained(store, run.config, "digits", document)
    assert "\nTry this.\n" in capsys.readouterr().out
    assert explanation.would_change(verdict)[-1].rule == "baseline"


@pytest.mark.parametrize("promoted", [False, True])
def test_a_refused_run_that_is_unchanged_says_why_once_and_is_explained(
    store: Store, promoted: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(store, promoted=promoted)
    recording.record(store, run.config, run.plan, run.results())
    document = unchanged.of_finished(store, run.plan)
    monkeypatch.setattr(show, "terminal", lambda: Console(width=300))
    show.retrained(store, run.config, "digits", document)
    assert (f"explain digits {document['run_id']}\n" in capsys.readouterr().out) == (not promoted)
    line = unchanged.why_not_champion("digits", document)
    assert line is not None and "leptonflow promote" in line and document["sentence"] not in line
