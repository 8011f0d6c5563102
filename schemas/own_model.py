"""The keys of the section `model:` that name the user's own code: the same for every workload.

A function is written `module:function`, its module beside the YAML or installed. What is called with what, and when:
`leptonflow.workloads.user_model`.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.rules import Frozen, ModelFunction

FUNCTIONS = ("function", "compile", "callbacks")


class OwnModel(Frozen):
    """The user's own functions. Each is left out of every document and digest where the YAML does not have it."""

    function: ModelFunction | None = Field(default=None, exclude_if=lambda value: value is None)
    compile: ModelFunction | None = Field(default=None, exclude_if=lambda value: value is None)
    callbacks: ModelFunction | None = Field(default=None, exclude_if=lambda value: value is None)


def functions(model: Any) -> dict[str, str]:
    """The user's own functions in a section `model:` of any workload, by their keys."""
    found = {key: getattr(model, key, None) for key in FUNCTIONS}
    return {key: value for key, value in found.items() if value is not None}
