"""The retraining flow's parameters, with bounds: Prefect's UI shows them as a form, and its API refuses the rest.

The form's descriptions are those of the flow's docstring. What does not belong here: what a parameter means, which the
engine decides when the run begins.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# Patterns are read by pydantic, by Prefect's server and by the browser: no look-around.
PipelineName = Annotated[
    str, Field(pattern=r"^([a-z0-9][a-z0-9._-]{0,62}|[\s\S]+\.ya?ml)$", max_length=4096, examples=["digits"])
]
StoreUri = Annotated[  # without credentials: what a person types into the form is kept and shown
    str | None,
    Field(
        pattern=r"^(file://(localhost)?/[^?#]*|s3://[^/@?#]+(/[^?#]*)?|[^:]+)$",
        max_length=4096,
        examples=["s3://bucket/prefix"],
    ),
]


class Parameters(BaseModel):
    """All of them, where they are read from a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pipeline: PipelineName
    store: StoreUri = None
    force: bool = False

    def given(self) -> dict[str, Any]:
        """Those that were said; the others have the flow's defaults."""
        return self.model_dump(exclude_unset=True)
