"""The files beside a pipeline's YAML that it declares: `model.weights`, `model.files`, that of `training.start_from`.

Which they are, their digests, and which the user's code names without declaring them. What does not belong here:
the user's code itself (code_digests), and weights that lie elsewhere (`workloads.user_weights`).
"""

from __future__ import annotations

import ast
import errno
from pathlib import Path

from leptonflow.core import files
from leptonflow.core.code_digests import user_code
from schemas.config import Pipeline
from schemas.errors import ConfigurationError
from schemas.text import printable


def declared(config: Pipeline) -> dict[str, Path]:
    """Each file by its path from the YAML's folder.

    Raises ConfigurationError where one is missing, or is none: a link that leads out of the folder, a pipe.
    """
    found: dict[str, Path] = {}
    weights = getattr(config.model, "weights", None)
    if isinstance(weights, str):
        found[weights] = _file(config, "model.weights", weights)
    if config.training.start_file is not None:
        found[config.training.start_file] = _file(config, "training.start_from", config.training.start_file)
    for pattern in getattr(config.model, "files", ()):
        there = _matches(config.folder, pattern)
        if not there:
            raise ConfigurationError(
                f"model.files: nothing matches {pattern}", expected=f"a file in {config.folder}", received="none",
                hint="Put the file there, or fix the pattern",
            )  # fmt: skip
        for path in there:
            name = path.relative_to(config.folder).as_posix()
            found[name] = _file(config, "model.files", name)
    return dict(sorted(found.items()))


def _matches(folder: Path, pattern: str) -> list[Path]:
    """Files, in order. What is hidden, such as .env, must be named with its dot, as in a shell."""

    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.parts)

    shown = not hidden(Path(pattern))
    found = (path for path in folder.glob(pattern) if not path.is_dir())
    return sorted(path for path in found if not (shown and hidden(path.relative_to(folder))))


def digests(config: Pipeline) -> dict[str, str]:
    """The sha256 of each declared file by its path from the YAML's folder; nothing where none is declared."""
    return {name: files.digest(path) for name, path in declared(config).items()}


def undeclared(config: Pipeline) -> list[str]:
    """A sentence about files beside the YAML that the user's code names as text although they are not declared."""
    code = {name: path for name, path in user_code(config).items() if path.is_relative_to(config.folder)}
    if not code:
        return []
    named = {text for path in code.values() for text in _texts(path)}
    known = {*declared(config), *code, config.contract}
    found = sorted(name for name in named - known if _lies_there(config.folder, name))
    if not found:
        return []
    return [
        f"the model's code names {', '.join(map(printable, found))}, which model.files does not declare: another file "
        "would be the same version, and the package has no copy"
    ]


def _texts(path: Path) -> set[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # told when it is imported
        return set()
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _lies_there(folder: Path, name: str) -> bool:
    try:
        return not Path(name).is_absolute() and files.below(folder, name).is_file()
    except (OSError, ValueError):  # longer than any name, outside of the folder
        return False


def _file(config: Pipeline, key: str, name: str) -> Path:
    try:
        if not name.isprintable():
            raise OSError(errno.EINVAL, "no file of a package can have that name")
        return files.regular(files.below(config.folder, name))
    except OSError as error:
        raise ConfigurationError(
            f"{key} {printable(name)} cannot be read",
            expected=f"a file in {config.folder}, the folder of the pipeline's YAML",
            received=error.strerror or str(error),
            hint="Put the file there"
            + ("; one that lies elsewhere is {uri: ..., sha256: ...}" if key == "model.weights" else ""),
        ) from None
