"""What a final fit starts with, as it is planned and as it is recorded: `training.start_from`.

How layers are matched does not belong here (leptonflow.training.starting_weights).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Start(_Record):
    """The model whose weights a final fit starts with: of a version of the pipeline, or a file beside the YAML."""

    version: str | None
    file: str | None  # its path from the YAML's folder
    sha256: str  # of the model's file
    classes: tuple[str, ...] | None  # of the version

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"the version {self.version}" if self.version else f"the file {self.file}"


class Started(_Record):
    """What became of it: `layers` of the model's `of` layers with weights were taken; each mismatch is a sentence."""

    version: str | None
    file: str | None
    sha256: str
    layers: int
    of: int
    mismatches: tuple[str, ...]
