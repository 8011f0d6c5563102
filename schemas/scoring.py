"""The section `score` of a pipeline's YAML: what its champion scores by a schedule, and where the rows go.

What does not belong here: scoring (leptonflow.batch_scoring).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from schemas.rules import Frozen
from schemas.schedule import Schedule

OUTPUT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Score(Frozen):
    """source: as `predict` takes it; output: the folder of the rows on the store, scores/<pipeline>/<output>."""

    source: Annotated[str, Field(min_length=1)]
    output: str = "default"
    schedule: Schedule | None = None
    processes: Annotated[int, Field(ge=1, le=64)] = 1

    @field_validator("output")
    @classmethod
    def _name(cls, value: str) -> str:
        if not OUTPUT.fullmatch(value):
            raise ValueError(f"a name matches {OUTPUT.pattern}")
        return value
