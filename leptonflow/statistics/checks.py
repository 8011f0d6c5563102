"""What the functions of this package refuse, in one place and in the same words."""

from __future__ import annotations

import math
from typing import Any

from schemas.errors import LeptonflowError


def refuse(what: str, expected: str, received: Any) -> LeptonflowError:
    """An error to raise: `what` is wrong."""
    return LeptonflowError(f"{what} is not one that can be computed with", expected=expected, received=str(received))


def confidence(value: float) -> None:
    if not 0.5 < value < 1:
        raise refuse("a confidence", "above 0.5 and below 1", value)


def margin(value: float) -> None:
    if not 0 <= value < 1:
        raise refuse("a margin", "0 or more, and below 1", value)


def bound(value: float) -> None:
    """A margin, or a negative one: how much better the candidate has to be."""
    if not -1 < value < 1:
        raise refuse("a margin", "above -1 and below 1", value)


def proportion(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise refuse(name, "above 0 and below 1", value)


def size(value: int) -> None:
    if value < 1:
        raise refuse("a number of examples", "1 or more", value)


def pairs(b: int, c: int, n: int) -> None:
    size(n)
    if b < 0 or c < 0 or b + c > n:
        raise refuse("a count of discordant pairs", f"b and c of 0 or more, together at most {n}", f"{b} and {c}")


def finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise refuse(name, "a finite number", value)
