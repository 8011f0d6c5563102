"""The section `group:` of a pipeline's YAML: what says which examples belong together, such as those of one patient.

Its keys and what they may be belong here. How an example's group is found: `leptonflow.data.ingest.example_groups`.
"""

from __future__ import annotations

import string
from typing import Annotated, Any, Literal

from pydantic import model_validator

from schemas.rules import COMPOSED, Frozen, left_out

LABEL = "label"


class Group(Frozen):
    """One of three: a column of the table, a field of a pattern that names or paths have, the parent folder."""

    column: Annotated[str, COMPOSED] | None = left_out(None)
    pattern: Annotated[str, COMPOSED] | None = left_out(None)
    # of the pattern; None: the one called group, or the only one that is not the label
    field: str | None = left_out(None)
    folder: Literal["parent"] | None = left_out(None)

    @model_validator(mode="after")
    def _one_of_three(self) -> Group:
        if sum(bool(each) for each in (self.column, self.pattern, self.folder)) != 1:
            raise ValueError("one of column, pattern and folder")
        if self.field is not None and self.pattern is None:
            raise ValueError("field only with pattern")
        if self.pattern is not None:
            _check(self.pattern, self.field)
        return self

    @property
    def name(self) -> str:
        """What a group is called: the column, the pattern's field, or folder."""
        return self.column or (_choose(self.pattern, self.field) if self.pattern else "folder")


def of_text(value: Any) -> Any:
    """The short form: the name of a column, or a pattern, which has braces."""
    if isinstance(value, str):
        return {"pattern" if "{" in value else "column": value}
    return value


def fields(pattern: str) -> list[tuple[str, str | None]]:
    """(text, the field after it) in the order of the pattern; the last field may be None. Raises ValueError."""
    found = list(string.Formatter().parse(pattern))
    if any(form or conversion for _, _, form, conversion in found):
        raise ValueError("a field is a name in braces and no more")
    return [(text, name) for text, name, _, _ in found]


def _check(pattern: str, field: str | None) -> None:
    wanted = "a pattern of names with fields in braces, such as {label}_{speaker}_{take}.wav"
    try:
        found = fields(pattern)
    except ValueError as error:
        raise ValueError(f"{wanted}: {error}") from None
    names = [name for _, name in found if name is not None]
    if not names or len(set(names)) != len(names) or not all(name.isidentifier() for name in names):
        raise ValueError(f"{wanted}, each with a name of its own")
    if any(not text for (text, name) in found[1:] if name is not None):
        raise ValueError(f"{wanted}, with text between two fields")
    if pattern.startswith("/"):
        raise ValueError(f"{wanted}, relative to the source")
    if _choose(pattern, field) not in names:
        raise ValueError(f"field: one of {', '.join(name for name in names if name != LABEL) or 'other fields'}")


def _choose(pattern: str, field: str | None) -> str:
    """The field that is the group; an empty text where that is not clear."""
    if field is not None:
        return "" if field == LABEL else field
    names = [name for _, name in fields(pattern) if name is not None and name != LABEL]
    return "group" if "group" in names else names[0] if len(names) == 1 else ""
