"""Candidate and champion example by example: counts that add up, held against a count by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leptonflow.statistics.intervals import wilson
from leptonflow.workloads.base import Slices
from leptonflow.workloads.classification_errors import CONFIDENCE, MOST_SHOWN, Analysis, analyse

CLASSES = ("cat", "dog", "owl")


def said(*answers: tuple[int, float]) -> Any:
    """N x 3 probabilities: the class given with its probability, the rest shared."""
    found = np.empty((len(answers), 3))
    for row, (number, probability) in zip(found, answers, strict=True):
        row[:] = (1 - probability) / 2
        row[number] = probability
    return found


# label, candidate, champion: one example of each square of the table, and a second one lost.
LABELS = np.array([0, 1, 1, 2, 0])
CANDIDATE = said((0, 0.9), (0, 0.6), (1, 0.7), (0, 0.8), (1, 0.95))
CHAMPION = said((0, 0.8), (1, 0.5), (2, 0.9), (1, 0.7), (0, 0.6))


def small(champion: Any = CHAMPION, candidate: Any = CANDIDATE) -> Analysis:
    ids = ["a", "b", "c", "d", "e"]
    sources = [f"{name}.png" for name in ids]
    return analyse(ids, LABELS, candidate, champion, CLASSES, ["mon", "mon", "tue", "tue", "tue"], sources)


def test_every_example_stands_in_one_square() -> None:
    found = small()
    assert found.pairs is not None
    pairs = found.pairs
    assert (pairs.both, pairs.only_champion, pairs.only_candidate, pairs.neither) == (1, 2, 1, 1)
    assert found.pairs.difference == pytest.approx(-1 / 5)
    assert (found.candidate.right, found.candidate.n, found.candidate.value) == (2, 5, 0.4)
    interval = wilson(2, 5, CONFIDENCE)
    assert (found.candidate.low, found.candidate.high) == (interval.low, interval.high)
    assert found.champion is not None and found.champion.right == 3


def test_the_examples_that_changed_hands_are_told_with_both_answers() -> None:
    found = small()
    assert [(e.index, e.label, e.candidate.label) for e in found.lost] == [(4, "cat", "dog"), (1, "dog", "cat")]
    assert [e.index for e in found.won] == [2]
    lost = found.lost[0]
    assert lost.champion is not None
    assert lost.champion.label == "cat" and lost.champion.probability == pytest.approx(0.6)
    assert (lost.batch, lost.source) == ("tue", "e.png")
    assert lost.chance == pytest.approx(0.025), "what the candidate gave to the true label"
    assert [e.index for e in found.worst] == [4, 3, 1], "the surest mistake first"
    assert found.shown == (4, 3, 1, 2)


def test_classes_and_batches_add_up() -> None:
    found = small()
    assert [(g.name, g.candidate.right, g.candidate.n, g.only_champion, g.only_candidate) for g in found.per_class] == [
        ("cat", 1, 2, 1, 0), ("dog", 1, 2, 1, 1), ("owl", 0, 1, 0, 0),
    ]  # fmt: skip
    assert [(g.name, g.candidate.n, g.candidate.right) for g in found.per_batch] == [("mon", 2, 1), ("tue", 3, 1)]


def test_without_a_champion_there_is_nothing_of_it() -> None:
    found = small(champion=None)
    assert found.champion is None and found.pairs is None and found.champion_reliability is None
    assert found.lost == found.won == ()
    assert all(e.champion is None for e in found.worst)
    assert all((g.champion, g.only_champion, g.only_candidate) == (None, None, None) for g in found.per_class)


def test_many_examples_agree_with_a_count_by_hand() -> None:
    rng = np.random.default_rng(7)
    n, classes = 1200, [str(k) for k in range(7)]
    labels = rng.integers(0, 6, n)  # the last class has no example
    mine, its = (rng.dirichlet(np.ones(7), n) + np.eye(7)[labels] * rng.random((n, 1)) for _ in range(2))
    mine, its = mine / mine.sum(1, keepdims=True), its / its.sum(1, keepdims=True)
    ids = [f"{i:05d}" for i in rng.permutation(n)]
    batches = [f"batch {i % 3}" for i in range(n)]
    slices = Slices("words", ("few", "some", "none"), np.arange(n) % 2)
    found = analyse(ids, labels, mine, its, classes, batches, ["x"] * n, [slices])
    right, other = mine.argmax(1) == labels, its.argmax(1) == labels
    assert found.pairs is not None
    assert found.pairs.only_candidate == sum(bool(a and not b) for a, b in zip(right, other, strict=True)) > MOST_SHOWN
    assert found.pairs.difference == pytest.approx(right.mean() - other.mean())
    assert len(found.worst) == len(found.lost) == len(found.won) == MOST_SHOWN
    assert {e.index for e in found.won} <= set(np.flatnonzero(right & ~other))
    assert [e.candidate.probability for e in found.worst] == sorted(mine.max(1)[~right])[::-1][:MOST_SHOWN]
    assert [g.name for g in found.per_slice["words"]] == ["few", "some", "none"]
    for groups in (found.per_class, found.per_batch, found.per_slice["words"]):
        assert sum(g.candidate.n for g in groups) == n
        assert sum(g.candidate.right for g in groups) == found.candidate.right
        assert sum(g.only_champion or 0 for g in groups) == found.pairs.only_champion
    empty = found.per_class[-1].candidate
    assert (empty.n, empty.value, empty.low, empty.high) == (0, None, None, None)
    assert sum(bin.share.n for bin in found.reliability.bins) == n
    assert sum(bin.share.right for bin in found.reliability.bins) == found.candidate.right
    gaps = [bin.share.n * abs(bin.confidence - (bin.share.value or 0)) for bin in found.reliability.bins]
    assert found.reliability.error == pytest.approx(sum(gaps) / n)


def test_a_model_that_answers_nan_is_wrong_and_is_shown() -> None:
    candidate = CANDIDATE.copy()
    candidate[0] = np.nan
    candidate[1] = [1.0000001, 0, 0]  # as a softmax in single precision may say
    found = small(candidate=candidate)
    assert sum(bin.share.n for bin in found.reliability.bins) == 4
    assert found.reliability.error is not None and np.isfinite(found.reliability.error)
    nothing = small(candidate=np.full((5, 3), np.nan))
    assert nothing.reliability.bins == () and nothing.reliability.error is None


def test_an_empty_holdout() -> None:
    none = np.empty((0, 3))
    found = analyse([], np.array([], np.int64), none, none, CLASSES, [], [])
    assert found.n == 0 and found.pairs is None and found.candidate.value is None
    assert not (found.worst or found.lost or found.won or found.per_batch)


@pytest.mark.parametrize(
    "changed",
    [{"champion": CHAMPION[:4]}, {"champion": CHAMPION[:, :2]}, {"candidate": CANDIDATE[:, :2]}],
    ids=["fewer examples", "fewer classes", "candidate"],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        small(**changed)
