"""Why a candidate was promoted or refused, and what would have changed it: words and numbers from the verdict alone."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from leptonflow.gate import explanation
from leptonflow.runs import recording, rejections, run_explanation
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.errors import Damaged, NotFound
from schemas.records import RuleResult, Verdict
from tests.run_examples import make

INFRA = RuleResult(
    rule="infra_validate", metric=None, value=0.0, bound=1e-5, passed=True, sentence="it reproduced its predictions"
)


def rule(name: str, value: float | None, bound: float | None, passed: bool | None, **more: Any) -> RuleResult:
    more = {"metric": "accuracy", "sentence": "as it is", **more}
    return RuleResult(
        rule=name, value=value, bound=bound, passed=passed, **more,
    )  # fmt: skip


def verdict(*rules: RuleResult, champion: str | None = "c1" * 6, **more: Any) -> Verdict:
    failed = any(r.passed is False for r in rules) or not any(r.passed for r in rules)
    return Verdict(
        run_id="r1" * 6, version="a1" * 6, verdict="refused" if failed else "promoted", rules=(*rules, INFRA),
        sentence="s", champion=champion, against=1, **more,
    )  # fmt: skip


def change(*rules: RuleResult) -> explanation.Change:
    (found,) = explanation.would_change(verdict(*rules))
    return found


def test_a_bound_that_was_missed_names_the_value_that_would_have_passed() -> None:
    found = change(rule("at_least", 0.87, 0.9, False))
    assert (found.needed, found.by, found.needed_n) == (0.9, pytest.approx(0.03), None)
    assert found.sentence == "accuracy of at least 0.9 instead of 0.87, 0.03 more"
    found = change(rule("at_most", 0.5, 0.2, False))
    assert (found.needed, found.by) == (0.2, pytest.approx(0.3))
    assert found.sentence == "accuracy of at most 0.2 instead of 0.5, 0.3 less"


def test_an_interval_that_reaches_over_the_bound() -> None:
    """0.92 is above 0.9, the lower end 0.88 is not: 0.02 more, or four times the examples, would do."""
    found = change(rule("at_least", 0.92, 0.9, False, low=0.88, high=0.95, confidence=0.95, n=200, method="wilson"))
    assert (found.needed, found.by) == (pytest.approx(0.94), pytest.approx(0.02))
    assert found.needed_n in (800, 801)
    assert f"about {found.needed_n} examples at the same value instead of 200" in found.sentence
    text = explanation.paragraph(
        "digits",
        verdict(rule("at_least", 0.92, 0.9, False, low=0.88, high=0.95, confidence=0.95, n=200, method="wilson")),
    )
    assert "(n = 200, 0.95 interval 0.88 to 0.95, wilson)" in text


def test_a_difference_to_the_champion_and_a_slice() -> None:
    found = change(rule("against_champion", -0.005, -0.01, False, low=-0.02, high=0.01, n=360, method="tango"))
    assert found.needed == pytest.approx(0.005)
    assert found.sentence.startswith("a difference in accuracy of at least about 0.005 instead of -0.005, 0.01 more")
    # A slice is refused only where even the upper end of its interval lies beyond the margin.
    found = change(rule("slices", -0.3, -0.05, False, low=-0.4, high=-0.2, n=40, slice="class=cat"))
    assert (found.needed, found.slice) == (pytest.approx(-0.15), "class=cat")


@pytest.mark.parametrize(
    ("failed", "measured", "told"),
    [
        (rule("at_least", 0.98, 0.97, False, low=0.94, high=0.99, n=50),
         {}, "more examples, about 800 examples instead of 50: with these 50 examples it takes accuracy of at least "
         "about 1.01, and no candidate can have more than 1"),
        (rule("against_champion", -0.01, -0.01, False, low=-0.08, high=0.06, n=60),
         {"accuracy": 0.95}, "more examples: with these 60 examples it takes a difference in accuracy of at least "
         "about 0.06, and no candidate can have more than 0.04"),
        (rule("against_champion", 0.02, 0.2, False, n=60), {"accuracy": 0.92},
         "another bound: a difference in accuracy of at least 0.2 is required, and no candidate can have more"),
        (rule("baseline", 0.98, 1.0, False, n=60), {},
         "another bound: accuracy of more than 1 is required, and no candidate can have more than 1"),
        (rule("at_most", 0.01, -0.1, False, metric="log_loss"), {}, "another bound: log_loss of at most -0.1"),
    ],
)  # fmt: skip
def test_a_value_that_no_candidate_can_have_is_not_proposed(
    failed: RuleResult, measured: dict[str, float], told: str
) -> None:
    (found,) = explanation.would_change(verdict(failed), measured)
    assert (found.needed, found.by, found.reachable) == (None, None, False)
    assert found.sentence.startswith(told)
    for tell in (explanation.paragraph, explanation.summary):
        text = tell("p", verdict(failed), measured)
        assert f"ould have passed {failed.rule} with {told.partition(':')[0]}" in text


def test_the_difference_of_a_loss_is_bounded_by_the_champions() -> None:
    failed = rule("against_champion", 0.1, 0.4, False, metric="log_loss", n=60)
    (found,) = explanation.would_change(verdict(failed), {"log_loss": 0.2})
    assert "no candidate can have more than 0.3" in found.sentence
    (found,) = explanation.would_change(verdict(failed), {"log_loss": 0.5})
    assert found.reachable and found.needed == 0.4


def test_an_interval_that_is_shown_and_did_not_decide() -> None:
    """Calibration without a confidence: its upper end is beyond the bound, and its value has passed."""
    interval = {"low": 0.01, "high": 0.08, "confidence": 0.95, "n": 300, "method": "percentile bootstrap"}
    found = change(rule("calibration", 0.03, 0.05, True, **interval))
    assert (found.needed, found.by) == (0.05, pytest.approx(0.02))
    found = change(rule("calibration", 0.06, 0.05, False, low=0.03, high=0.09, n=300))
    assert found.needed == pytest.approx(0.02), "its upper end was beyond the bound, whatever decided"


def test_a_baseline_in_a_metric_that_should_be_low_and_a_budget() -> None:
    found = change(rule("baseline", 0.9, 0.7, False, metric="log_loss", n=300))
    assert found.sentence == "log_loss of less than 0.7 instead of 0.9, 0.2 less"
    found = change(rule("baseline", 0.6, 0.7, False, n=300))
    assert found.sentence == "accuracy of more than 0.7 instead of 0.6, 0.1 more", "0.7 itself fails"
    found = change(rule("baseline", 0.8, 0.7, True, n=300))
    assert found.sentence == "accuracy of at most 0.7 would have refused it; it was 0.8"
    found = change(rule("latency", 31.0, 20.0, False, metric=None))
    assert found.sentence == "latency of at most 20 instead of 31, 11 less"
    found = change(rule("overfit", 0.2, 0.05, False))
    assert found.sentence == "a difference in accuracy of at most 0.05 instead of 0.2, 0.15 less"


@pytest.mark.parametrize(
    "failed",
    [
        rule("at_least", None, 0.9, False, sentence="accuracy on the holdout is not a finite number"),
        rule("at_least", float("nan"), 0.9, False, sentence="accuracy on the holdout is not a finite number"),
        rule("rolled-back", None, None, False, sentence="kim rolled this version back"),
        rule("stale-snapshot", 1, 2, False, sentence="the champion learned from snapshot 2"),
        # Its own exact test failed although its interval lies above the bound: no number would be true.
        rule("against_champion", 0.01, 0.0, False, low=0.001, high=0.02, n=90, method="mcnemar"),
    ],
)
def test_where_no_number_would_have_changed_it_its_sentence_is_repeated(failed: RuleResult) -> None:
    found = change(failed)
    assert (found.needed, found.by, found.needed_n) == (None, None, None)
    assert failed.sentence in found.sentence


def test_a_refusal_in_a_paragraph() -> None:
    text = explanation.paragraph(
        "digits",
        verdict(
            rule("at_least", 0.87, 0.9, False, sentence="accuracy is 0.87, at least 0.9 is required"),
            rule("slices", None, -0.05, None, slice="class=cat", sentence="3 examples are too few to judge"),
            warnings=("the holdout was used 20 times",), looks=20,
        ),
    )  # fmt: skip
    assert text.startswith(
        f"Run {'r1' * 6} evaluated version {'a1' * 6} against the champion {'c1' * 6} and refused it."
    )
    for said in (
        "Of 3 rules 1 passed, 1 failed, 1 did not apply.",
        "The rule at_least: accuracy is 0.87, at least 0.9 is required.",
        "The rule slices on class=cat: 3 examples are too few to judge (did not apply).",
        "It would have passed at_least with accuracy of at least 0.9 instead of 0.87, 0.03 more.",
        f"`leptonflow promote digits --version {'a1' * 6} --reason TEXT`",
        "The holdout was used 20 times.",
    ):
        assert said in text
    assert "\n" not in text


def test_the_summary_of_a_refusal_names_the_first_failed_rule_and_what_would_have_passed() -> None:
    text = explanation.summary(
        "digits",
        verdict(
            rule("at_least", 0.87, 0.9, False, sentence="accuracy is 0.87. At least 0.9 is required."),
            rule("latency", 31.0, 20.0, False, metric=None),
            warnings=("the holdout was used 20 times",), looks=20,
        ),
    )  # fmt: skip
    assert text == (
        f"Version {'a1' * 6} was refused; the champion {'c1' * 6} stays. "
        "The candidate failed at_least: accuracy is 0.87; At least 0.9 is required; latency failed too. "
        "It would have passed at_least with accuracy of at least 0.9 instead of 0.87, 0.03 more; "
        f"{explanation.BY_HAND}: `leptonflow promote digits --version {'a1' * 6} --reason TEXT`."
    )


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            verdict(rule("at_least", 0.99, 0.5, True), rule("slices", None, None, None), champion=None),
            f"Version {'a1' * 6} was promoted, the first champion. 2 of 3 rules passed and 1 did not apply. "
            "Nearest to failing was at_least: ",
        ),
        (
            verdict(rule("at_least", 0.99, 0.5, True), champion="a1" * 6),
            f"The champion {'a1' * 6} passes its gate again and stays. 2 of 2 rules passed. Nearest",
        ),
        (
            verdict(rule("at_least", 0.95, 0.9, True), INFRA.model_copy(update={"passed": False, "value": 0.5})),
            f"Version {'a1' * 6} was refused; the champion {'c1' * 6} stays. The candidate failed infra_validate: ",
        ),
    ],
)
def test_the_summary_has_three_sentences_at_most(found: Verdict, told: str) -> None:
    text = explanation.summary("digits", found)
    assert text.startswith(told) and text.count(". ") <= 2 and text.endswith(".") and "\n" not in text


def test_a_promotion_says_what_was_nearest_to_failing() -> None:
    found = verdict(rule("at_least", 0.99, 0.5, True), rule("fold_spread", 0.049, 0.05, True), champion=None)
    assert [c.rule for c in explanation.would_change(found)] == ["fold_spread", "at_least"]
    text = explanation.paragraph("digits", found)
    assert "while there was no champion and promoted it." in text
    assert "Nearest to failing was fold_spread: a standard deviation of accuracy above 0.05 would have refused" in text
    assert "promote digits" not in text


def test_no_way_around_the_infra_validation() -> None:
    broken = INFRA.model_copy(update={"passed": False, "value": 0.5})
    text = explanation.paragraph("digits", verdict(rule("at_least", 0.95, 0.9, True), broken))
    assert "no override skips the infra-validation" in text.lower() and "promote digits" not in text


def test_a_sentence_is_not_said_twice() -> None:
    text = explanation.paragraph("digits", verdict(rule("rolled-back", None, None, False, sentence="kim took it down")))
    assert text.count("kim took it down") == 1
    assert "It would have passed" not in text


def test_a_first_candidate_that_nothing_could_weigh() -> None:
    text = explanation.paragraph(
        "digits",
        verdict(rule("against_champion", None, -0.01, None, sentence="there is no champion yet"), champion=None),
    )
    assert "It would have passed against_champion with something to compare (there is no champion yet)." in text
    assert "promote digits" in text


# --- a run on the store


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def test_the_newest_finished_run_or_the_one_that_is_named(store: Store) -> None:
    for number, promoted in enumerate((True, False), start=1):
        run = make(
            store, version=f"a{number}" * 6, run_id=f"b{number}" * 6, promoted=promoted, accuracy=0.85, seed=number
        )
        recording.record(store, run.config, run.plan, run.results())
    found = run_explanation.explain(store, run.config)
    assert (found["run_id"], found["version"], found["verdict"]) == ("b2" * 6, "a2" * 6, "refused")
    assert [c["rule"] for c in found["would_change"]] == ["at_least"]
    assert set(found) == {"run_id", "version", "verdict", "champion", "against", "paragraph", "would_change"}
    assert run_explanation.explain(store, run.config, "b1" * 6)["verdict"] == "promoted"
    with pytest.raises(NotFound, match=f"no finished run {'0' * 12}.*one of {'b2' * 6}, {'b1' * 6}"):
        run_explanation.explain(store, run.config, "0" * 12)
    del store._objects[f"runs/digits/{'b2' * 6}/verdict.json"]  # type: ignore[attr-defined]
    with pytest.raises(Damaged, match=r"verdict\.json is missing"):
        run_explanation.explain(store, run.config)


def test_no_run_yet(store: Store) -> None:
    config = make(store).config
    with pytest.raises(NotFound, match=r"no finished run.*there is none yet.*retrain digits"):
        run_explanation.explain(store, config)


def test_a_retraining_that_trained_nothing_is_why_there_is_no_run(store: Store) -> None:
    config = make(store).config
    rejections.record(store, config.name, "a" * 12, ["b"], "there are too few of Sport: 1")
    said = r"no finished run: `retrain` at 2.*trained nothing.*too few of Sport: 1.*put right"
    with pytest.raises(NotFound, match=said):
        run_explanation.explain(store, config)


def test_an_empty_run_id_is_no_finished_run(store: Store) -> None:
    run = make(store)
    recording.record(store, run.config, run.plan, run.results())
    with pytest.raises(NotFound, match=r"no finished run ''.*Received: ''"):
        run_explanation.explain(store, run.config, "")


def test_what_a_run_waits_for() -> None:
    found = verdict(rule("at_least", 0.99, 0.5, True)).model_copy(update={"verdict": "waiting"})
    for awaited in ("approval", "labelled predictions"):
        told = found.model_copy(update={"sentence": f"waiting for {awaited} to replace the champion"})
        assert f"passed it, which waits for {awaited}." in explanation.paragraph("digits", told)
        assert f"passed its gate and waits for {awaited};" in explanation.summary("digits", told)
