"""What candidate and champion got right and wrong on the holdout, example by example.

Of a classification of one class per example. A pure function of predictions: counts, shares with their
intervals, and the indices of the examples worth a look. Nothing here decides: that is the gate's. What does not
belong here: reading predictions from the store (report_contents) and how any of it is drawn (html_report, plots).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leptonflow.workloads.base import Slices
from leptonflow.workloads.classification import ClassScores
from leptonflow.workloads.confusion_matrix import Matrix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95  # of every interval here, two-sided
RESAMPLES = 1000  # of the groups, for each interval
MOST_SHOWN = 24  # examples of each kind: more make the page too long


@dataclass(frozen=True)
class Share:
    """`right` of `n`, with Wilson's interval (1927). value, low and high are None where n is 0.

    Where examples come in groups, the interval is that of the cluster bootstrap.
    """

    right: int
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Answer:
    """What a model said: a class, and how sure it was of it (0..1)."""

    label: str
    probability: float


@dataclass(frozen=True)
class Example:
    """One holdout example. `index` is its row in the predictions and among the holdout's examples.

    chance: the probability that the candidate gave to the true label.
    """

    index: int
    label: str
    chance: float
    candidate: Answer
    champion: Answer | None
    batch: str
    source: str


@dataclass(frozen=True)
class Pairs:
    """Every example once, by who was right. difference: candidate minus champion."""

    both: int
    only_champion: int
    only_candidate: int
    neither: int
    difference: float


@dataclass(frozen=True)
class Group:
    """The examples of one class, batch or slice. The champion's part is None where there is none to compare."""

    name: str
    candidate: Share
    champion: Share | None
    only_champion: int | None
    only_candidate: int | None


@dataclass(frozen=True)
class Bin:
    """The predictions whose probability fell into one tenth of 0..1: its mean, and how many were right."""

    confidence: float
    share: Share


@dataclass(frozen=True)
class Reliability:
    """Accuracy by predicted probability. error: the expected calibration error (Guo et al. 2017).

    Both are of the predictions with a finite probability; error is None where there is no such prediction.
    """

    bins: tuple[Bin, ...]
    error: float | None


@dataclass(frozen=True)
class Analysis:
    """Of N holdout examples. `pairs`, `champion` and what else is the champion's: None or empty without one."""

    n: int
    candidate: Share
    champion: Share | None
    pairs: Pairs | None
    reliability: Reliability
    champion_reliability: Reliability | None
    matrix: Matrix  # of the candidate
    per_class: tuple[Group, ...]  # in class order
    per_batch: tuple[Group, ...]  # by name
    per_slice: Mapping[str, tuple[Group, ...]]  # by what the slices are of, in their order
    worst: tuple[Example, ...]  # the candidate's wrong predictions, the most confident first, MOST_SHOWN at most
    lost: tuple[Example, ...]  # champion right, candidate wrong, the candidate's surest first, MOST_SHOWN at most
    won: tuple[Example, ...]  # candidate right, champion wrong, the champion's surest first, MOST_SHOWN at most

    @property
    def shown(self) -> tuple[int, ...]:
        """The indices of all examples that are to be seen, the worst mistakes first, each once."""
        return tuple(dict.fromkeys(e.index for e in (*self.worst, *self.lost, *self.won)))


def analyse(
    ids: Sequence[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    champion: NDArray[np.float64] | None,
    classes: Sequence[str],
    batches: Sequence[str],
    sources: Sequence[str],
    slices: Sequence[Slices] = (),
    groups: NDArray[np.int64] | None = None,
) -> Analysis:
    """Compare two models' predictions with each other, and both with the labels.

    ids, labels, batches and sources are of the same N examples; labels are class numbers; probabilities
    and `champion` are N x K in the order of the K classes. `champion` is None where there is no other
    model to compare with. groups: the number of the group of each example, where they come in groups.
    Raises ValueError where the shapes do not fit.
    """
    import numpy as np

    _same_lengths(ids, labels, batches, sources)
    scores = ClassScores(labels, probabilities, classes)
    mine = _Answers(scores, groups)
    its = _Answers(ClassScores(labels, champion, classes), groups) if champion is not None else None
    everything = np.ones(len(ids), np.bool_)

    def examples(chosen: NDArray[np.bool_], sure: NDArray[np.float64]) -> tuple[Example, ...]:
        order = sorted(chosen.nonzero()[0].tolist(), key=lambda i: (-sure[i], ids[i]))
        return tuple(
            Example(
                index=i,
                label=classes[labels[i]],
                chance=float(probabilities[i, labels[i]]),
                candidate=mine.answer(i, classes),
                champion=its.answer(i, classes) if its is not None else None,
                batch=batches[i],
                source=sources[i],
            )
            for i in order[:MOST_SHOWN]
        )

    return Analysis(
        n=len(ids),
        candidate=mine.share(everything),
        champion=its.share(everything) if its is not None else None,
        pairs=_pairs(mine.right, its.right) if its is not None and len(ids) else None,
        reliability=_reliability(mine),
        champion_reliability=_reliability(its) if its is not None else None,
        matrix=Matrix(scores.confusion() if len(ids) else (), classes),
        per_class=tuple(_group(name, labels == number, mine, its) for number, name in enumerate(classes)),
        per_batch=_by_name(batches, mine, its),
        per_slice={
            each.name: tuple(_group(name, each.of == number, mine, its) for number, name in enumerate(each.values))
            for each in slices
        },
        worst=examples(~mine.right, mine.sure),
        lost=examples(its.right & ~mine.right, mine.sure) if its is not None else (),
        won=examples(mine.right & ~its.right, its.sure) if its is not None else (),
    )


class _Answers:
    """A model's predictions of N examples: said (class numbers), sure (their probabilities), right."""

    def __init__(self, scores: ClassScores, groups: NDArray[np.int64] | None) -> None:
        self.said, self.sure, self.right, self.groups = scores.predicted, scores.confidence, scores.correct, groups

    def answer(self, index: int, classes: Sequence[str]) -> Answer:
        return Answer(classes[self.said[index]], float(self.sure[index]))

    def share(self, members: NDArray[np.bool_]) -> Share:
        """How many of these examples, chosen by N booleans, are right."""
        from leptonflow.statistics import clusters, intervals

        right = self.right[members]
        n, count = len(right), int(right.sum())
        if not n:
            return Share(0, 0, None, None, None)
        if self.groups is None:
            interval = intervals.wilson(count, n, CONFIDENCE)
        else:
            interval = clusters.share(right, self.groups[members], CONFIDENCE, seed=0, resamples=RESAMPLES)
        return Share(count, n, count / n, interval.low, interval.high)


def _same_lengths(
    ids: Sequence[str], labels: NDArray[np.int64], batches: Sequence[str], sources: Sequence[str]
) -> None:
    for name, column in (("labels", labels), ("batches", batches), ("sources", sources)):
        if len(column) != len(ids):
            raise ValueError(f"{len(column)} {name}: expected {len(ids)}, one for each example")


def _pairs(mine: NDArray[np.bool_], its: NDArray[np.bool_]) -> Pairs:
    won, lost = int((mine & ~its).sum()), int((its & ~mine).sum())
    return Pairs(
        both=int((mine & its).sum()),
        only_champion=lost,
        only_candidate=won,
        neither=int((~mine & ~its).sum()),
        difference=(won - lost) / len(mine),
    )


def _reliability(answers: _Answers) -> Reliability:
    import numpy as np

    from leptonflow.statistics import calibration

    there = np.isfinite(answers.sure)
    sure = answers.sure
    if not there.any():
        return Reliability((), None)
    place = np.where(there, calibration.places(np.where(there, sure, 0.0)), -1)
    bins = tuple(
        Bin(each.confidence, answers.share(place == number))
        for number, each in enumerate(calibration.bins(sure[there], answers.right[there]))
        if each.confidence is not None
    )
    return Reliability(bins, calibration.expected_error(sure[there], answers.right[there]))


def _group(name: str, members: NDArray[np.bool_], mine: _Answers, its: _Answers | None) -> Group:
    if its is None:
        return Group(name, mine.share(members), None, None, None)
    own, other = mine.right[members], its.right[members]
    return Group(name, mine.share(members), its.share(members), int((other & ~own).sum()), int((own & ~other).sum()))


def _by_name(names: Sequence[str], mine: _Answers, its: _Answers | None) -> tuple[Group, ...]:
    import numpy as np

    column: Any = np.asarray(names, object)
    return tuple(_group(name, column == name, mine, its) for name in sorted(set(names)))
