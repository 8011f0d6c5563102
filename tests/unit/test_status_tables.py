"""What `status` says to a person, held against documents of each kind of trouble."""

from __future__ import annotations

from typing import Any

import pytest

from cli import status_tables
from leptonflow.runs import summaries
from schemas.workloads import overall

EMPTY: dict[str, Any] = {
    "champion": None, "since": None, "metrics": None, "damage": None, "newest": None, "snapshot": None, "examples": 0,
    "classes": None, "examples_per_class": None, "batches": [], "waiting": [], "refused": [], "open": [], "late": [],
    "discarded": [], "conflicts": [], "misnamed": [], "warnings": [], "last_run": None, "running": None, "lost": [],
    "store": {"uri": "file:///data/store", "exists": True},
}  # fmt: skip
RUN = {
    "run_id": "r1",
    "version": "v1",
    "started_at": "2026-11-24T10:00:00.5Z",
    "last_change": "2026-11-24T10:20:00+00:00",
}
LAST = {"run_id": "r0", "verdict": "refused", "finished_at": "2026-11-24T09:00:00.5Z", "reason": "at_least: too low"}


def told(capsys: pytest.CaptureFixture[str], **changed: Any) -> str:
    status_tables.status("p.yaml", "p", {**EMPTY, **changed})
    return " ".join(capsys.readouterr().out.split())


def test_an_empty_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys) == (
        "store file:///data/store champion none newest version none dataset empty (0 examples) pending batches none "
        "last run none"
    )
    missing = {"uri": "file:///data/store", "exists": False}
    assert "does not exist yet: the first `ingest` creates it" in told(capsys, store=missing)


def test_batches_that_need_a_hand(capsys: pytest.CaptureFixture[str]) -> None:
    at = "2026-11-24T10:00:00.5Z"
    text = told(
        capsys,
        refused=[{
            "batch": "b", "sentence": "too many", "reasons": {"unreadable-image": 3, "batch-refused": 7}, "at": at,
            "quarantine": [
                {"rule": "unreadable-image", "rows": 3, "source": "cat/a.png", "reason": "no\nimage"},
                {"rule": "batch-refused", "rows": 7, "source": "cat/b.png", "reason": "too many"},
            ],
        }],
        open=[
            {"batch": "o", "files": 1, "newest": at, "note": None},
            {"batch": "m", "files": 2, "newest": None, "note": "x"},
        ],
        late=[{"batch": "l", "files": 8, "sentence": "8 files added later"}],
        discarded=[{"batch": "d", "reason": "[bold]no good", "who": "me", "at": at}],
        misnamed=["No Name"],
        warnings=["a sentence"],
        waiting=[f"w{number}" for number in range(22)],
    )  # fmt: skip
    for part in (
        "refused b at 2026-11-24 10:00 UTC: too many 3 unreadable-image",
        r"3 unreadable-image, such as cat/a.png: no\nimage 7 batch-refused: good rows of a batch that is refused as a",
        "row by row: `",
        """query "select source, rule, reason from quarantine where pipeline = 'p' and batch = 'b'"`""",
        "discard p.yaml BATCH --reason TEXT`",
        "open o: 1 file, the newest written 2026-11-24 10:00 UTC; it is not read until an empty _READY closes it",
        "open m: 2 files; x",
        "late files l: 8 files added later; they are never read there",
        "discarded d ([bold]no good)",
        "never read No Name (invalid batch names)",
        "warning a sentence",
        "w19, and 2 more",
    ):
        assert part in text, text


def test_a_dataset_that_no_run_has_finished(capsys: pytest.CaptureFixture[str]) -> None:
    now = {"snapshot": "s2", "examples": 3}
    for last in (None, {**LAST, "snapshot": "s1"}):
        assert "not trained no finished run used this dataset yet: `" in told(capsys, **now, last_run=last)
    assert "not trained" not in told(capsys, **now, last_run={**LAST, "snapshot": "s2"})
    assert "not trained" not in told(capsys, **now, running=RUN)


def test_data_that_the_last_retraining_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"snapshot": "s2", "batches": [], "sentence": "the holdout is empty", "at": "2026-11-24T10:00:00.5Z"}
    text = told(capsys, snapshot="s2", examples=3, rejected=found, last_run={**LAST, "snapshot": "s1"})
    assert "rejected data `retrain` at 2026-11-24 10:00 UTC trained nothing: the holdout is empty" in text
    assert "not trained" not in text
    assert "not trained" in told(capsys, snapshot="s3", examples=3, rejected=found)  # more data came since
    status_tables.runs([{**LAST, "key_metric": None, "version": "v0"}], found)
    printed = " ".join(capsys.readouterr().out.split())
    assert "rejected data: `retrain` at 2026-11-24 10:00 UTC trained nothing" in printed


def test_a_rule_that_a_refused_batchs_sentence_names_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"rule": "unknown-label", "rows": 3, "source": "cow/a.png", "reason": "no class"}
    sentence = "3 of 4 rows newly quarantined; 3 unknown-label, such as cow/a.png: no class"
    refused = {"batch": "b", "sentence": sentence, "at": "2026-11-24T10:00:00.5Z", "quarantine": [row]}
    text = told(capsys, refused=[refused])
    assert text.count("3 unknown-label") == 1
    assert "quarantine where pipeline = 'p' and batch = 'b'" in text


def test_runs_that_are_not_finished(capsys: pytest.CaptureFixture[str]) -> None:
    assert "in progress r1, started 2026-11-24 10:00 UTC" in told(capsys, running=RUN)
    assert "in progress a run that is preparing its data" in told(capsys, running=dict.fromkeys(RUN))
    lost = told(capsys, lost=[{**RUN, "run_id": "r9"}, RUN], last_run=LAST)
    assert "lost run r1, started 2026-11-24 10:00 UTC, stopped before it finished (and 1 before it); `" in lost
    assert "retrain p.yaml` resumes it, if data and YAML are as they were" in lost
    assert "retrain p.yaml --force` resumes it" in told(capsys, lost=[{**RUN, "attempt": 1}], last_run=LAST)
    assert "last run r0 refused at 2026-11-24 09:00 UTC: at_least: too low" in lost
    assert "lost run" not in told(capsys, lost=[RUN], last_run={**LAST, "finished_at": "2026-11-24T11:00:00.5Z"})


def test_the_metrics_are_in_their_workloads_order_whatever_the_document_sorts() -> None:
    found = dict.fromkeys(["accuracy", "f1", "f1[a]", "log_loss", "precision", "recall", "recall[a]"], 0.5)
    assert overall(found) == ["accuracy", "precision", "recall", "f1", "log_loss"]
    assert summaries.key_metric({"holdout": found, "cv": None, "gate": None}) == {
        "name": "accuracy", "on": "holdout", "value": 0.5,
    }  # fmt: skip


def test_a_run_tells_the_seconds_of_its_device() -> None:
    assert status_tables.cost({"device_seconds": 1234.5, "device": "gpu:0"}) == "1,234 s gpu:0"
    assert status_tables.cost(None) == "-"  # a run of an earlier release


def test_the_history_has_its_times_as_the_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    record = {
        "number": 1, "version": "a" * 12, "previous": None, "kind": "promotion", "who": "retrain", "reason": "it is",
        "at": "2026-11-29T05:57:28.017Z",
    }  # fmt: skip
    status_tables.history([record])
    shown = capsys.readouterr().out
    assert "2026-11-29 05:57 UTC" in shown and "05:57:28" not in shown
