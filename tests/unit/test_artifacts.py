"""What the Prefect UI shows of a run, as pure functions: names, tags, artifacts, pictures."""

from __future__ import annotations

import base64
import re
import xml.dom.minidom
from typing import Any

import pytest

from flows import artifacts, run_names
from flows.artifacts import Artifact, Story, Trained
from leptonflow.reports import plots
from leptonflow.runs import recording, rejections, unchanged
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.workloads.confusion_matrix import Matrix
from schemas.records import Outcome
from tests import run_examples
from tests.run_examples import HOSTILE

STORE = "s3://bucket/some prefix"


@pytest.fixture(scope="module")
def store() -> Store:
    return open_store("memory://telling")


def told(store: Store, **changed: Any) -> tuple[run_examples.Run, Story]:
    """A recorded run and its story."""
    run = run_examples.make(store, **changed)
    document = recording.record(store, run.config, run.plan, run.results())
    assert run.plan.snapshot is not None
    trained = Trained(run.plan.snapshot, run.evaluation, run.fits, run.final, run.verdict)
    return run, Story(document, (run_examples.outcome(),), trained)


def by_key(artifacts: list[Artifact]) -> dict[str, Artifact]:
    return {artifact.key: artifact for artifact in artifacts}


def lines(markdown: str) -> list[str]:
    return markdown.splitlines()


def test_names_and_tags_say_pipeline_data_and_verdict() -> None:
    assert run_names.run_name("digits", "3fa2c1d07e55", "training") == "digits-3fa2c1d07e55-training"
    assert run_names.run_name("digits", None, "rejected-data") == "digits-rejected-data"
    assert run_names.tags(["nightly"], "digits") == ["digits", "leptonflow", "nightly"]
    assert run_names.tags(["nightly", "crashed", "leptonflow"], "digits", "promoted") == [
        "digits", "leptonflow", "nightly", "promoted",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("digits-3fa2c1d07e55-training", "digits-3fa2c1d07e55-failed"),
        ("digits-starting", "digits-failed"),
        ("digits-3fa2c1d07e55-crashed", "digits-3fa2c1d07e55-failed"),
        ("magnificent-mongoose", "digits-failed"),
    ],
)
def test_a_failed_run_keeps_what_its_name_said(before: str, after: str) -> None:
    assert run_names.failed_name(before, "digits", "failed") == after


def test_progress_runs_over_all_folds_and_the_final_fit_and_over_nothing_else() -> None:
    reports = [("fold 1", 0), ("fold 1", 50), ("fold 5", 100), ("final fit", 50), ("final fit", 100)]
    percents = [found[0] for stage, done in reports if (found := run_names.moved({stage: done / 100}, 5))]
    assert percents == pytest.approx([0, 8, 80, 90, 100])
    assert run_names.moved({"examining": 0.75}, 5) is None
    assert run_names.moved({"fold 1": 1, "fold 2": 0.25}, 5) == (pytest.approx(20.0), "fold 2 of 5")
    assert run_names.moved({"fold 2": 0.25}, 5) == (pytest.approx(20.0), "fold 2 of 5")  # fold 1 was done before


def test_progress_of_folds_side_by_side_is_that_of_all_of_them() -> None:
    shares = {"fold 1": 0.5, "fold 2": 1.0, "fold 3": 0.25}
    assert run_names.moved(shares, 5) == (pytest.approx(100 * 0.8 * 1.75 / 5), "folds 1, 3 of 5")
    told = run_names.detailed("folds 1, 3 of 5", {"fold 1": "epoch 2 of 9", "fold 3": "epoch 1 of 9"})
    assert told == "folds 1, 3 of 5; fold 1: epoch 2 of 9; fold 3: epoch 1 of 9"
    assert run_names.detailed("fold 2 of 5", {"fold 2": "epoch 2 of 9"}) == "fold 2 of 5: epoch 2 of 9"
    assert run_names.detailed("fold 2 of 5", {"fold 2": None}) == run_names.detailed("fold 2 of 5", {}) == "fold 2 of 5"


def test_keys_have_the_characters_that_prefect_allows_and_no_two_pipelines_share_one() -> None:
    names = ("digits", "my.pipeline", "my_pipeline", "my-pipeline", "0")
    keys = [artifacts.key("champion", name) for name in names]
    assert keys[0] == "champion-digits" and len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[a-z0-9-]+", key) for key in keys)


def test_the_summary_tells_data_folds_comparison_gate_and_verdict(store: Store) -> None:
    run, story = told(store, version="c1" * 6, run_id="c2" * 6, champion="d" * 12)
    found = by_key(artifacts.artifacts("digits", STORE, story))
    assert list(found) == ["summary-digits", "report-digits", "gate-digits", "curves-digits", "confusion-digits"]
    summary = found["summary-digits"]
    assert summary.description == run.verdict.sentence
    text = summary.data
    assert lines(text)[0] == "# promoted"
    assert "| dataset | `5aa55aa55aa5`: 2,000 examples of 1 batch |" in text
    assert "| split | 1,600 train, 400 holdout |" in text
    assert "| first | accepted | 100 | 90 | 7 | 3 | 90 accepted, 7 quarantined, 3 already ingested |" in text
    assert "| unreadable | 4 |" in text and "| duplicate | 3 |" in text
    mean = story.document["cv"]["accuracy"]["mean"]
    assert f"| accuracy | {mean:.4f} |" in text
    assert run.evaluation.champion_scores is not None
    own = run.evaluation.candidate_scores.metrics["accuracy"] or 0.0
    other = run.evaluation.champion_scores.metrics["accuracy"] or 0.0
    sign = "+" if own >= other else "−"
    assert f"| accuracy | {own:.4f} | {other:.4f} | {sign}{abs(own - other):.4f} |" in text
    assert f"champion `{'d' * 12}`" in text
    for rule in run.verdict.rules:
        assert f"- {'passed' if rule.passed else 'not applicable'}: " in text
    assert text.index("| train | 31 s |") < text.index("| validate | 1.5 s |")


def test_the_gate_is_a_table_with_a_row_for_each_rule(store: Store) -> None:
    run, story = told(store, version="e1" * 6, run_id="e2" * 6, promoted=False)
    gate = by_key(artifacts.artifacts("digits", STORE, story))["gate-digits"]
    assert gate.type == "table" and gate.description == "The gate's 3 rules: 1 passed, 1 failed, 1 not applicable"
    assert [row["rule"] for row in gate.data] == [rule.rule for rule in run.verdict.rules]
    assert [row["passed"] for row in gate.data] == ["failed", "not applicable", "passed"]
    assert gate.data[2]["bound"] == "1e-05"


def test_names_from_outside_are_only_text(store: Store) -> None:
    classes = (HOSTILE, "![x](http://evil/x.png)", "a|b", *"456789")
    _, story = told(store, version="f1" * 6, run_id="f2" * 6, classes=classes)
    outcome = run_examples.outcome(reasons={"<img src=x>": 7})
    changed = Story(story.document, (outcome.model_copy(update={"sentence": f"{HOSTILE} | x"}),), story.trained)
    found = by_key(artifacts.artifacts("digits", STORE, changed))
    text = found["summary-digits"].data
    for mark in ("<script>", "<img", "![x]", "](http"):
        assert mark not in re.sub(r"\\.", "", text)
    rows = [line for line in lines(text) if line.startswith("| first |")]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 8
    for key in ("curves-digits", "confusion-digits"):
        head, data = found[key].data.split(",", 1)
        assert head == "data:image/svg+xml;base64"
        picture = xml.dom.minidom.parseString(base64.b64decode(data).decode())
        assert not picture.getElementsByTagName("script") and not picture.getElementsByTagName("image")
        used = set(re.findall(r"var\((--[\w-]+)\)", picture.toxml()))
        assert used <= set(re.findall(r"(--[\w-]+):", picture.toxml())), "an image has no page that defines them"


def test_a_report_has_an_address_to_copy_and_a_command(store: Store, tmp_path: Any) -> None:
    document = {"run_id": "ab" * 6, "report": str(tmp_path / "a b.html")}
    found = artifacts.report("digits", "file:///a%20b", document)
    assert f"](<{(tmp_path / 'a b.html').as_uri()}>)" in found.data
    assert f"\n{(tmp_path / 'a b.html').as_uri()}\n" in found.data
    assert found.description == f"`leptonflow report {'ab' * 6} --store file:///a%20b`"
    served = artifacts.report("digits", "file:///a%20b", document, "http://127.0.0.1:4200/leptonflow/reports/x")
    assert "](http://127.0.0.1:4200/leptonflow/reports/x)" in str(served.data)
    assert "Browsers do not open" not in str(served.data)
    on_s3 = artifacts.report("digits", STORE, {"run_id": "ab" * 6, "report": f"{STORE}/runs/x/report.html"})
    assert f"\n{STORE}/runs/x/report.html\n" in on_s3.data and "--store 's3://bucket/some prefix'" in on_s3.data


def test_unchanged_names_the_earlier_run_and_why_its_version_is_not_the_champion(store: Store) -> None:
    run, story = told(store, version="0a" * 6, run_id="0b" * 6, promoted=False)
    document = {**unchanged.of_finished(store, run.plan), "champion": "d" * 12}
    (summary, report) = artifacts.artifacts("digits", STORE, Story(document))
    assert summary.description.startswith(f"nothing new since run {'0b' * 6}, which was: digits: ")
    assert lines(summary.data)[0] == "# unchanged" and f"the champion is {'d' * 12}" in summary.data
    assert "leptonflow promote" in summary.data
    assert run_names.sentence(document) != run_names.sentence(story.document)
    assert report.key == "report-digits"


def test_rejected_data_says_why_and_counts_by_rule(store: Store) -> None:
    refused: Outcome = run_examples.outcome(verdict="refused", reasons={"unreadable": 90, "duplicate": 7}).model_copy(
        update={"sentence": "90 of 100 rows are bad; at most 20% are allowed"}
    )
    run = run_examples.make(store, version="1a" * 6, run_id="1b" * 6)
    plan = run.plan.model_copy(update={"snapshot": None})
    document = rejections.document(store, plan, None, [refused], {"validate": 1.0})
    (summary,) = artifacts.artifacts("digits", STORE, Story(document, (refused,)))
    assert summary.description == "first: 90 of 100 rows are bad; at most 20% are allowed"
    assert "| unreadable | 90 |\n| duplicate | 7 |" in summary.data
    assert "| first | refused | 100 | 0 | 97 | 3 |" in summary.data
    assert "| dataset | empty |" in summary.data


def test_the_champion_is_the_logs_newest_record_and_its_text_depends_on_the_log_alone() -> None:
    records = [
        {"number": n, "version": f"{n:012x}", "previous": f"{n - 1:012x}" if n > 1 else None, "run_id": "r",
         "kind": "rollback" if n == 30 else "promotion", "who": "kim|lab", "reason": "too many\nsevens",
         "at": "2026-11-24T10:00:00.000000Z"}
        for n in range(1, 31)
    ]  # fmt: skip
    found = artifacts.champion("digits", STORE, records)
    assert found is not None and found.key == "champion-digits"
    assert found == artifacts.champion("digits", STORE, records)
    assert lines(found.data)[0] == "# 00000000001e"
    assert found.description == r"`00000000001e` by rollback of kim\|lab: too many\\nsevens"
    numbers = [int(line.split("|")[1]) for line in lines(found.data) if re.match(r"\| \d", line)]
    assert numbers == list(range(30, 10, -1))
    assert artifacts.champion("digits", STORE, []) is None


def test_each_stage_has_a_line() -> None:
    assert (
        run_names.line("validate", run_examples.outcome())
        == "first accepted: 90 accepted, 7 quarantined, 3 already ingested"
    )
    assert run_names.line("begin", "2026") == ""
    assert [run_names.some(n, "batch", "batches") for n in (0, 1, 2000)] == ["no batch", "1 batch", "2,000 batches"]


def test_a_confusion_matrix_of_too_many_classes_is_not_drawn() -> None:
    assert Matrix([[1, 0], [0, 1]], ["a", "b"]).svg().count("<rect") == 3
    assert Matrix([[1] * 31] * 31, [str(n) for n in range(31)]).svg() == ""
    assert Matrix([], []).svg() == ""


def test_the_same_curves_are_drawn_once(store: Store) -> None:
    run = run_examples.make(store, version="2a" * 6, run_id="2b" * 6)
    first = plots.curves(run.fits, run.final, "loss")
    again = plots.curves([fit.model_copy() for fit in run.fits], run.final.model_copy(), "loss")
    assert first and again is first
    assert plots.curves(run.fits, run.final, "accuracy") != first


def test_a_run_that_waits_for_approval_says_how_to_decide(store: Store) -> None:
    _, story = told(store, run_id="e5" * 6)
    sentence = "waiting for approval until tomorrow: `leptonflow approve digits e5` makes it the champion"
    waits = {**story.document, "verdict": "waiting", "approval": {"sentence": sentence}}
    assert run_names.tags(["promoted"], "digits", "waiting") == ["digits", "leptonflow", "waiting"]
    assert run_names.failed_name("digits-3fa2c1d07e55-waiting", "digits", "failed") == "digits-3fa2c1d07e55-failed"
    assert lines(artifacts.summary("digits", Story(waits, (), story.trained)))[0] == "# waiting"
    assert "leptonflow approve digits e5" in artifacts.summary("digits", Story(waits))
