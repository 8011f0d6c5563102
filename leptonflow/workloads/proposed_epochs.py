"""How many epochs `init` proposes: few examples make few steps an epoch, and a network needs hundreds of them. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

LEARNED = 0.64  # the share of all examples that a fold learns from: without the holdout, and without one of 5 folds
MOST = 100


class Epochs(NamedTuple):
    """number: of epochs; why: the reason in a sentence, None where it is the usual number."""

    number: int
    why: str | None

    @property
    def told(self) -> tuple[tuple[str, str], ...]:
        """As `init` prints it."""
        return (("epochs", f"{self.number}: {self.why}"),) if self.why else ()

    @property
    def comment(self) -> str:
        """As it stands in the YAML above them."""
        return f"# Epochs proposed: {self.why}.\n" if self.why else ""


def propose(examples: int, batch: int, usual: int, steps: int) -> Epochs:
    """For so many examples in all (0: not known), in batches of `batch`: `usual`, or as many as make `steps` steps."""
    each = max(1, math.ceil(examples * LEARNED / batch))
    number = min(MOST, math.ceil(steps / each))
    if not examples or number <= usual:
        return Epochs(usual, None)
    return Epochs(number, f"a fold learns from about {round(examples * LEARNED)} examples, {each} steps an epoch")
