"""The rules that decide which rows of a batch are accepted, and that nothing is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from leptonflow.data.validation.acceptance import Judgement, Knowledge, judge, refuse_whole
from leptonflow.data.validation.examined_rows import Row

CLASSES = ("cat", "dog")


def row(source: str, label: str | None = "cat", **given: Any) -> Row:
    values: dict[str, Any] = {
        "source": source, "label": label, "key": source, "row": None, "sha256": f"file-{source}", "rule": None,
        "reason": None, "id": f"id-{source}", "facts": {}, "encoded": b"",
    }  # fmt: skip
    return Row(**{**values, **given})


def judged(*rows: Row, knowledge: Knowledge | None = None, limit: float = 1.0, landed_known: int = 0) -> Judgement:
    result = judge(rows, knowledge or Knowledge(), CLASSES, limit=limit, known_at_landing=landed_known)
    assert len(result.accepted) + len(result.refused) + result.known == len(rows) + landed_known
    return result


def test_good_rows_are_accepted() -> None:
    result = judged(row("a"), row("b", "dog"))
    assert [r.source for r in result.accepted] == ["a", "b"]
    assert result.over is None


def test_a_row_that_could_not_be_read_keeps_its_rule() -> None:
    result = judged(row("a", rule="empty-file", reason="0 bytes", id=None))
    assert result.reasons() == {"empty-file": 1}
    assert result.refused[0].reason == "0 bytes"


@pytest.mark.parametrize("label", [None, "fish"])
def test_an_unknown_label(label: str | None) -> None:
    assert judged(row("a", label)).reasons() == {"unknown-label": 1}


def test_every_copy_after_the_first_is_a_duplicate() -> None:
    result = judged(row("a", id="x"), row("b", id="x"), row("c", id="x"))
    assert [r.source for r in result.accepted] == ["a"]
    assert result.reasons() == {"duplicate": 2}


def test_all_copies_under_two_labels_conflict() -> None:
    result = judged(row("a", id="x"), row("b", "dog", id="x"), row("c", id="x"), row("d"))
    assert [r.source for r in result.accepted] == ["d"]
    assert result.reasons() == {"conflicting-label": 3}
    assert {r.reason for r in result.refused} == {"this example is in the batch with the labels 'cat' (a), 'dog' (b)"}


def test_known_by_file_and_by_example() -> None:
    knowledge = Knowledge({"file-a": ("cat", "b1")}, {"id-b": ("cat", "b1")})
    result = judged(row("a", id="other"), row("b"), row("c"), knowledge=knowledge)
    assert result.known == 2
    assert [r.source for r in result.accepted] == ["c"]


def test_another_label_in_the_dataset_loses_and_names_the_batch() -> None:
    result = judged(row("a", "dog"), knowledge=Knowledge({}, {"id-a": ("cat", "monday")}))
    assert result.refused[0].rule == "conflicting-label"
    assert "monday" in result.refused[0].reason


def test_a_known_copy_does_not_make_its_newcomer_conflict_with_itself() -> None:
    knowledge = Knowledge({"file-a": ("cat", "b1")}, {"x": ("cat", "b1")})
    result = judged(row("a", id="x"), row("b", "dog", id="x"), knowledge=knowledge)
    assert result.known == 1
    assert result.reasons() == {"conflicting-label": 1}


def test_what_was_quarantined_before_is_quarantined_again_and_does_not_count_against_the_limit() -> None:
    knowledge = Knowledge(recalled={("file-a", "cat"): ("conflicting-label", "as before")})
    result = judged(row("a"), knowledge=knowledge, limit=0.0)
    assert result.reasons() == {"conflicting-label": 1}
    assert result.refused[0].reason == "as before"
    assert result.over is None


@pytest.mark.parametrize(("bad", "over"), [(2, False), (3, True)])
def test_the_limit_is_a_share_of_arrived(bad: int, over: bool) -> None:
    rows = [row(f"g{n}") for n in range(10 - bad)] + [row(f"b{n}", rule="empty-file", id=None) for n in range(bad)]
    assert (judged(*rows, limit=0.2).over is not None) is over


def test_duplicates_do_not_count_against_the_limit() -> None:
    assert judged(*(row(str(n), id="x") for n in range(10)), limit=0.0).over is None


def test_known_rows_count_as_arrived() -> None:
    bad = row("b", rule="empty-file", id=None)
    assert judged(bad, limit=0.2).over is not None
    assert judged(bad, limit=0.2, landed_known=9).over is None


def test_an_empty_batch_is_refused() -> None:
    assert judged().over is not None


def test_a_refused_batch_counts_its_good_rows_as_quarantined() -> None:
    whole = refuse_whole(judged(row("a"), row("b", rule="empty-file", id=None)), "too many")
    assert whole.reasons() == {"empty-file": 1, "batch-refused": 1}
    assert not whole.accepted
