"""Digests of the code that a result depends on: the project's own, the user's, and the versions of the libraries.

Code is read as files and never imported, so that planning needs no heavy library.
"""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from leptonflow.core import files
from leptonflow.core.hashing import digest, sha256
from schemas import own_model
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from schemas.config import Pipeline

ROOT = Path(__file__).resolve().parents[2]

# Folders and files of code, by the digest that they belong to. Of a workload's package, and of what that imports of
# its room, `examples` belongs to data, `codec` and `model` to train, `scoring` and `baselines` to gate.
DATA = ("leptonflow/data/dataset", "leptonflow/data/validation")
TRAIN = ("leptonflow/training", "leptonflow/keras_runtime", "leptonflow/workloads/predictions.py")
WHERE = "leptonflow/training/runners"  # of TRAIN, but changes no number
GATE = (
    "leptonflow/evaluation", "leptonflow/gate", "leptonflow/statistics", "leptonflow/registry/package_builder.py",
    "leptonflow/registry/packages.py", "leptonflow/registry/model_sources.py", "leptonflow/registry/onnx_export.py",
    "leptonflow/registry/onnx_session.py", "leptonflow/registry/latency.py", "leptonflow/registry/onnx_files.py",
    "leptonflow/registry/intact_champions.py", "leptonflow/registry/proven_champions.py",
)  # fmt: skip
WORKLOADS = "leptonflow/workloads"


def backend() -> str:
    """The name of Keras's backend in this process, read without importing Keras."""
    return os.environ.get("KERAS_BACKEND") or "tensorflow"


@lru_cache(maxsize=1)
def libraries() -> dict[str, str]:
    """The versions that a trained model depends on: Keras and its backend."""
    name = backend()
    package = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}.get(name, name)
    try:
        return {"keras": metadata.version("keras"), name: metadata.version(package)}
    except metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            "Keras's backend is not installed",
            expected="KERAS_BACKEND names an installed backend",
            received=f"KERAS_BACKEND={name}",
            hint=f"pip install {error.name}",
        ) from None


def code_digests(config: Pipeline, versions: dict[str, str] | None = None, own: bool = True) -> dict[str, str]:
    """The digests `data`, `train` and `gate` of the code that this pipeline's results depend on.

    versions are those of Keras and its backend, by default the installed ones: with recorded ones, what
    differs from a recorded digest is the code. own: with the user's own code.
    """
    theirs = user_code(config) if own else {}
    data = digest(_files((*DATA, *_workload(config.workload, "examples"))))
    train = digest(
        data,
        _files((*TRAIN, *_workload(config.workload, "codec", "model"))),
        {name: _file(path) for name, path in theirs.items()},
        libraries() if versions is None else versions,
    )
    gate = digest(train, _files((*GATE, *_workload(config.workload, "scoring", "baselines"))))
    return {"data": data, "train": train, "gate": gate}


def _files(names: Iterable[str]) -> dict[str, str]:
    """The sha256 of each module, by its path; of a folder, of every one in it."""
    found: dict[str, str] = {}
    for name in names:
        path = ROOT / name
        for each in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if not each.is_relative_to(ROOT / WHERE):
                found[each.relative_to(ROOT).as_posix()] = _file(each)
    return found


def _file(path: Path) -> str:
    return sha256(path.read_bytes())


@lru_cache
def _workload(name: str, *modules: str) -> tuple[str, ...]:
    """These modules of a workload's package, and what they import of the room of workloads."""
    found: set[str] = set()
    waiting = [f"{WORKLOADS}/{name}/{module}.py" for module in modules]
    while waiting:
        path = waiting.pop()
        if path in found or not (ROOT / path).is_file():
            continue
        found.add(path)
        for node in ast.walk(ast.parse((ROOT / path).read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("leptonflow.workloads"):
                module = str(node.module).replace(".", "/")
                waiting += [f"{module}.py", *(f"{module}/{each.name}.py" for each in node.names)]
    return tuple(sorted(found))


def user_code(config: Pipeline) -> dict[str, Path]:
    """The `.py` files of the user's own functions, by the path that an import would find them at.

    Every one of a function's top-level package, or the module and its siblings beside the YAML; and of what these
    import that lies beside it too.

    Raises ConfigurationError where a module is neither beside the YAML nor installed, and where a file beside the
    YAML is none: a link that leads out of the folder, a pipe, a device.
    """
    found: dict[str, Path] = {}
    for key, function in own_model.functions(config.model).items():
        what, waiting, seen = f"model.{key} {function}", [function.split(":")[0].split(".")[0]], set[str]()
        while waiting:
            top = waiting.pop()
            if top in seen:
                continue
            seen.add(top)
            new = _module(config, what, top)
            found |= new
            beside = [path for path in new.values() if path.is_relative_to(config.folder)]
            waiting += [name for path in beside for name in _imports(path) if _beside_yaml(config, name)]
    return found


def _beside_yaml(config: Pipeline, top: str) -> bool:
    return (config.folder / f"{top}.py").exists() or any((config.folder / top).glob("*.py"))


def _imports(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # told when it is imported
        return set()
    nodes = list(ast.walk(tree))
    named = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
    named += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in named} - {""}


def _module(config: Pipeline, what: str, top: str) -> dict[str, Path]:
    folder = config.folder
    alone = (folder / f"{top}.py").exists()  # a folder of that name may hold anything then, such as weights
    if (folder / top).is_dir() and (not alone or (folder / top / "__init__.py").exists()):
        return _beside(config, what, [folder / top, *(folder / top).rglob("*")])
    if alone:
        return _beside(config, what, folder.glob("*.py"))
    spec = util.find_spec(top)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"{what} names a module that is not there",
            expected=f"{top}.py or a package {top} beside the pipeline's YAML",
            received=f"neither in {folder}",
            hint=f"Put {top} into the YAML's folder, or install it",
        )
    origin = Path(spec.origin)
    if origin.name == "__init__.py":
        return {str(p.relative_to(origin.parent.parent)): p for p in sorted(origin.parent.rglob("*.py"))}
    return {origin.name: origin}


def _beside(config: Pipeline, what: str, paths: Iterable[Path]) -> dict[str, Path]:
    """The `.py` files among them by their path from the YAML's folder; a folder of the package may not be a link."""
    found = {}
    for path in sorted(paths):
        name = str(path.relative_to(config.folder))
        try:
            if path.suffix == ".py":
                files.read(files.below(config.folder, name), files.TEXT)
                found[name] = path
            elif path.is_symlink() and path.is_dir():
                raise OSError(errno.EINVAL, "it is a link to a folder")
        except OSError as error:
            raise ConfigurationError(
                f"{what} cannot be read: {path}",
                expected="files in the folder of the pipeline's YAML",
                received=error.strerror or str(error),
                hint="Put the file itself there, or install its package",
            ) from None
    return found
