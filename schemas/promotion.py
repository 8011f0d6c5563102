"""The section `promotion` of a pipeline's YAML: who must approve a candidate that its gate passed.

What does not belong here: what an approval does (leptonflow.runs.approval).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator

from schemas.rules import MOST, Frozen

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
DAY = UNITS["d"]


def seconds(value: Any) -> Any:
    """A duration as people write it, such as 90m, 12h or 3d, in seconds; anything else as it is."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", value) if isinstance(value, str) else None
    return float(found[1]) * UNITS[found[2]] if found else value


def duration(value: Any) -> Any:
    """As `seconds`. Raises ValueError for a text that is none."""
    found = seconds(value)
    if isinstance(found, str):
        raise ValueError("a duration, such as 90m, 12h or 3d, or a number of seconds")
    return found


class Approval(Frozen):
    """People may decide about a candidate: those named in `approve`, or where it names none, anybody."""

    approve: tuple[Annotated[str, Field(min_length=1)], ...]
    timeout: Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False)] = 3 * DAY  # seconds

    @field_validator("approve", mode="before")
    @classmethod
    def _people(cls, value: Any) -> Any:
        if value is None or value == "none":
            return ()
        if not isinstance(value, list | tuple):
            raise ValueError("a list of the names of those who may approve, or none: then anybody may")
        return tuple(value)

    _duration = field_validator("timeout", mode="before")(duration)
