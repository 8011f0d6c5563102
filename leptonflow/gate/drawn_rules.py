"""How the rules of a gate decide on simulated predictions: only which of n examples candidate and champion get right.

A rule that needs more than that (probabilities, folds, a package) cannot be drawn, and says why. Pure
and seeded. What does not belong here: drawing (leptonflow.gate.simulation), and where a holdout's slices and
a champion's accuracy are read (leptonflow.runs.operating_curve).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leptonflow.gate.rules import slicing
from leptonflow.gate.rules.words import reaches
from schemas.config import Pipeline
from schemas.rules import AgainstChampion, AtLeast, AtMost, Slices
from schemas.text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.gate.evidence import Evidence

AT_ONCE = 4_000_000  # examples put in order at once
MOST = 500_000_000  # discordant examples x slices that are looked at: some seconds

ELSEWHERE = {
    "fold_spread": "it needs trained folds",
    "against_champion_cv": "it needs trained folds of both versions on one snapshot",
    "calibration": "it needs probabilities",
    "baseline": "it needs simple models, trained on this data",
    "overfit": "it needs the candidate's training examples",
    "latency": "it is measured on a package",
    "size": "it is measured on a package",
}


@dataclass(frozen=True)
class Draws:
    """P true differences x R retrainings, each on its own n examples; arrays are P x R of counts.

    b, c   examples that only the candidate, and that only the champion gets right
    right  examples that the candidate gets right; null where the champion's accuracy is not known
    """

    n: int
    b: NDArray[np.int64]
    c: NDArray[np.int64]
    right: NDArray[np.int64] | None


@dataclass(frozen=True)
class Drawn:
    """A rule. judge: for each of P x R retrainings whether it lets it pass; null where it cannot tell, and why."""

    rule: str
    metric: str | None
    judge: Callable[[Draws], NDArray[np.bool_]] | None
    why: str | None = None


def gate(
    config: Pipeline,
    n: int,
    discordance: float,
    retrainings: int,
    *,
    accuracy: float | None,
    holdout: Evidence | None,
    seed: int = 0,
) -> tuple[Drawn, ...]:
    """The rules of a pipeline's gate, in its order, as `retrainings` holdouts of n examples are drawn for them.

    accuracy  the champion's; null where it is not known
    holdout   labels, batches and facts of the current holdout; null where they are not known
    """
    found: list[Drawn] = []
    for rule in config.gate:
        metric = getattr(rule, "metric", None)
        if isinstance(rule, AgainstChampion) and metric == "accuracy":
            found.append(against(-rule.margin if rule.test == "superiority" else rule.margin, rule.confidence))
            found.append(Drawn("against_champion_cv", metric, None, ELSEWHERE["against_champion_cv"]))
        elif isinstance(rule, Slices):
            found.append(slices(rule, n, n * discordance * retrainings, holdout, seed))
        elif isinstance(rule, AtLeast | AtMost) and rule.on == "holdout" and metric == "accuracy":
            unknown = _no_accuracy(accuracy, discordance)
            found.append(Drawn(rule.rule, metric, None if unknown else bound(rule, n), unknown))
        elif isinstance(rule, AtLeast | AtMost) and rule.on == "cv":
            found.append(Drawn(rule.rule, metric, None, ELSEWHERE["fold_spread"]))
        else:
            why = ELSEWHERE.get(rule.rule, "only accuracy is simulated, not the class or probability of a prediction")
            found.append(Drawn(rule.rule, metric, None, why))
    return tuple(found)


def _no_accuracy(accuracy: float | None, discordance: float) -> str | None:
    """Why the candidate's right predictions cannot be drawn; None where they can."""
    if accuracy is None:
        return "no run has scored a champion, whose accuracy on the holdout is needed"
    if not discordance / 2 <= accuracy <= 1 - discordance / 2:
        return f"two versions that are right on {accuracy:.4g} of all examples do not differ on {discordance:.4g}"
    return None


def against(margin: float, confidence: float) -> Drawn:
    """`against_champion` on accuracy; a negative margin means superiority, as in `paired.passes`."""
    from leptonflow.statistics import paired

    def judge(draws: Draws) -> NDArray[np.bool_]:
        return paired.passes(draws.b, draws.c, draws.n, margin, confidence)

    return Drawn("against_champion", "accuracy", judge)


def bound(rule: AtLeast | AtMost, n: int) -> Callable[[Draws], NDArray[np.bool_]]:
    """`at_least` and `at_most` on the holdout's accuracy: the least (the most) right predictions of n that pass.

    More right predictions never turn a pass of `at_least` into a failure, so that halving finds it.
    """
    from leptonflow.statistics import intervals

    least = isinstance(rule, AtLeast)

    def enough(right: int) -> bool:
        """`at_least` passes; or `at_most` does not."""
        low = high = right / n
        if rule.confidence is not None:
            interval = intervals.wilson(right, n, rule.confidence)
            low, high = interval.low, interval.high
        return reaches(low, rule.value) if least else not reaches(rule.value, high)

    fails, passes = -1, n + 1
    while passes - fails > 1:
        middle = (fails + passes) // 2
        fails, passes = (fails, middle) if enough(middle) else (middle, passes)

    def judge(draws: Draws) -> NDArray[np.bool_]:
        assert draws.right is not None
        return draws.right >= passes if least else draws.right < passes

    return judge


def slices(rule: Slices, n: int, pairs: float, holdout: Evidence | None, seed: int) -> Drawn:
    """`slices` over n examples that fall into slices as the current holdout does; with the same difference in each."""
    import numpy as np

    def cannot(why: str) -> Drawn:
        return Drawn(rule.rule, rule.metric, None, why)

    if holdout is None or not len(holdout.labels):
        return cannot("no data has arrived: which slices the holdout has is not known")
    places = np.arange(n) * len(holdout.labels) // n  # of another size: each example as often as it takes
    found = [part.members[places] for part in slicing.slices(rule, holdout) if part.judged]
    judged = [members for members in found if members.sum() >= rule.minimum]
    if not judged:
        return cannot(f"no slice of {counted(n, 'example')} has the {rule.minimum} that are needed to test it")
    if pairs * len(judged) > MOST:
        return cannot(f"{len(judged)} slices of {n} examples are too many to simulate: give a smaller --holdout")
    return Drawn(rule.rule, rule.metric, _in_slices(np.stack(judged), slicing.margin(rule), rule.confidence, seed))


def _in_slices(
    members: NDArray[np.bool_], margin: float, confidence: float, seed: int
) -> Callable[[Draws], NDArray[np.bool_]]:
    """members: S slices x n examples. Passes where S times the smallest p, which Holm looks at first, is not below.

    Each retraining has its own random order of the examples: the first b are the candidate's alone, the
    next c the champion's. Of one order, retrainings take stretches that do not overlap.
    """
    import numpy as np

    def judge(draws: Draws) -> NDArray[np.bool_]:
        from scipy.special import ndtr

        from leptonflow.statistics import paired

        random, n = np.random.default_rng([seed, 2]), draws.n
        retrainings = draws.b.shape[1]
        reach = max(1, int((draws.b + draws.c).max()))
        stretches = n // reach  # of one order
        smallest = np.ones(draws.b.shape)
        rows = max(1, AT_ONCE // n)
        for start in range(0, retrainings, rows * stretches):
            some = slice(start, min(start + rows * stretches, retrainings))
            b, both = draws.b[:, some].T, (draws.b + draws.c)[:, some].T  # r x P
            orders = np.tile(np.arange(n, dtype=np.int32), (-(-len(b) // stretches), 1))
            order = random.permuted(orders, axis=1)[:, : stretches * reach].reshape(-1, reach)[: len(b)]  # r x reach
            seen = np.zeros((len(b), reach + 1), np.int32)
            for part in members:
                np.cumsum(part[order], axis=1, out=seen[:, 1:])
                mine = np.take_along_axis(seen, b, axis=1)
                theirs = np.take_along_axis(seen, both, axis=1) - mine
                p = ndtr(paired.score(mine, theirs, int(part.sum()), -margin))
                smallest[:, some] = np.minimum(smallest[:, some], p.T)
        return np.minimum(1.0, len(members) * smallest) >= 1 - confidence

    return judge
