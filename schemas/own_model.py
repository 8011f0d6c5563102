"""The keys of the section `model:` that name the user's own code and files: the same for every workload.

A function is written `module:function`, its module beside the YAML or installed. What is called with what, and when:
`leptonflow.workloads.user_model`. Where the files are: `leptonflow.core.declared_files`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import ValidationInfo, field_validator

from schemas.rules import AS_TUPLE, Frozen, ModelFunction, left_out

FUNCTIONS = ("function", "compile", "callbacks", "custom_objects")


SCHEMES = ("https", "http", "s3", "file")


class Weights(Frozen):
    """Weights that do not lie beside the YAML: their digest says what they are, wherever they are fetched from."""

    uri: str
    sha256: str

    @field_validator("uri")
    @classmethod
    def _of_a_file(cls, value: str) -> str:
        scheme, found, rest = value.partition("://")
        host, _, path = rest.partition("/")
        plain = value.isascii() and value.isprintable() and not re.search("[?#\\\\ ]", value)
        named = path.rpartition("/")[2] not in ("", ".", "..")
        if not found or scheme not in SCHEMES or not named or "@" in host or not plain:
            raise ValueError(
                f"the address of a file, {', '.join(SCHEMES)}://.../NAME: ASCII, other characters percent-encoded, "
                "without credentials, ? and #"
            )
        return value

    @field_validator("sha256")
    @classmethod
    def _digest(cls, value: str) -> str:
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError("the file's sha256, 64 hex digits, as sha256sum prints it")
        return value

    @property
    def name(self) -> str:
        """The file's name, whose suffix tells Keras what is in it."""
        return PurePosixPath(self.uri).name


class OwnModel(Frozen):
    """The user's own functions. Each is left out of every document and digest where the YAML does not have it."""

    function: ModelFunction | None = left_out(None)
    compile: ModelFunction | None = left_out(None)
    callbacks: ModelFunction | None = left_out(None)
    custom_objects: ModelFunction | None = left_out(None)
    weights: str | Weights | None = left_out(None)
    files: Annotated[tuple[str, ...], AS_TUPLE] = left_out(())

    @field_validator("weights", mode="plain")
    @classmethod
    def _file_or_uri(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return None
        if info.data.get("function") is None:
            raise ValueError("model.function as well: it is given the path of the weights")
        if isinstance(value, str) and "://" not in value:
            return below(value)
        if isinstance(value, Mapping | Weights):
            return Weights.model_validate(value)
        raise ValueError("a file in the YAML's folder, or {uri: ..., sha256: ...} of one that lies elsewhere")

    @field_validator("files")
    @classmethod
    def _below_the_folder(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and not functions(info.data):
            raise ValueError(f"one of model.{', model.'.join(FUNCTIONS)} as well: nothing else reads the files")
        for each in value:
            parts = PurePosixPath(each).parts
            if not parts or parts[-1] == "**" or any("**" in part and part != "**" for part in parts):
                raise ValueError('patterns of files, such as "*.json" or "data/**/*.txt"')
        return tuple(below(each) for each in value)


def effective(model: Frozen) -> dict[str, Any]:
    """The keys of a section `model:` that decide what is built: those of the built-in models, or the user's own."""
    given = model.model_dump(mode="json")
    return {k: v for k, v in given.items() if k in OwnModel.model_fields} if given.get("function") else given


def unread(model: Frozen) -> list[str]:
    """The keys of the built-in models that a section `model:` sets, beside a function that builds the model."""
    return sorted(model.model_fields_set - OwnModel.model_fields.keys()) if functions(model).get("function") else []


def runs_code(model: Any) -> bool:
    """Whether the YAML lets code be run that lies in a package: its models cannot be loaded without."""
    return "custom_objects" in functions(model)


def below(name: str) -> str:
    """The path, in its plain form. Raises ValueError where it leads out of the YAML's folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("a path that stays below the YAML's folder")
    return path.as_posix()


def functions(model: Any) -> dict[str, str]:
    """The user's own functions in a section `model:` of any workload, by their keys."""
    found = model if isinstance(model, dict) else {key: getattr(model, key, None) for key in FUNCTIONS}
    found = {key: found.get(key) for key in FUNCTIONS}
    return {key: value for key, value in found.items() if value is not None}
