"""The margin of `against_champion` that a holdout of some size can show: what `init` proposes. Pure.

What does not belong here: deciding about a candidate (rules), and the YAML's text.
"""

from __future__ import annotations

from typing import NamedTuple

from leptonflow.statistics import power

MARGINS = (0.03, 0.05, 0.1, 0.15, 0.2, 0.3)
DISCORDANCE = 0.05  # assumed: the share of examples that exactly one of two equally accurate versions gets right
CONFIDENCE = 0.95  # of the rule, by default
CHANCE = 0.5  # that such a candidate passes, from which on a verdict does not say that its holdout is too small


class Proposed(NamedTuple):
    """margin: the smallest that the holdout can show, or the largest of MARGINS where it can show none of them.

    holdout  how many examples the holdout will have, about
    needed   how many examples MARGINS[0] needs in all, about; None where the holdout can show it
    least    how many `margin` needs in all, about, where the holdout cannot show it; else None
    """

    margin: float
    holdout: int
    needed: int | None
    least: int | None

    @property
    def sentence(self) -> str:
        """Why this margin."""
        of = f"a holdout of about {self.holdout}"
        if self.needed is None:
            return f"{of} can show it"
        if self.least is not None:
            return f"{of} is too small for any margin: {self.margin:g} needs about {self.least} examples in all"
        return f"{of} can show no smaller one: {MARGINS[0]:g} needs about {self.needed} examples in all"


def propose(examples: int, fraction: float) -> Proposed:
    """The margin for so many examples, of which `fraction` become the holdout."""
    holdout = max(1, round(examples * fraction))
    shown = [m for m in MARGINS if power.pass_rate(0.0, DISCORDANCE, holdout, m, CONFIDENCE) >= CHANCE]
    margin = shown[0] if shown else MARGINS[-1]
    return Proposed(
        margin,
        holdout,
        None if margin == MARGINS[0] else _needed(MARGINS[0], fraction),
        None if shown else _needed(margin, fraction),
    )


def _needed(margin: float, fraction: float) -> int:
    """Examples in all, rounded up to tens."""
    size = power.needed(0.0, DISCORDANCE, margin, CONFIDENCE, CHANCE)
    assert size is not None
    return -(-round(size / fraction) // 10) * 10
