"""A model function of the user's own: `module:function`, found from the folder of the pipeline's YAML.

Importing it, calling it and checking what it gives belong here. Which files its digest covers is
said in `digests.user_code`; what is trained with it, in `training`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from leptonflow.core.code_digests import user_code
from leptonflow.core.hashing import sha256
from leptonflow.keras_runtime.keras_models import keras
from schemas.config import Pipeline
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_imported: dict[str, str] = {}  # file: sha256, of the user's code that this process imported last


def build(config: Pipeline, classes: Sequence[str], example: NDArray[Any]) -> Any:
    """Call the function as `build(input, classes)`; input is the section of the YAML.

    example: what the model takes of two examples. Gives a keras.Model from N such to (N, classes) probabilities.
    Raises ConfigurationError where it gives anything else, or raises.
    """
    assert config.model.function is not None
    module_name, function_name = config.model.function.split(":")
    with _importable(config):
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # a script's own command line ends the process
            raise _wrong(config, "cannot be imported", "a module that imports", _told(error)) from error
        _check_origin(config, module)
        function = getattr(module, function_name, None)
        if not callable(function):
            names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            there = f"a function in {module_name}: {', '.join(names) or 'none'}"
            raise _wrong(config, "is not there", there, function_name)
        model = _call(config, function, classes)
    _check(config, model, len(classes), example)
    return model


def _call(config: Pipeline, function: Callable[..., Any], classes: Sequence[str]) -> Any:
    try:
        return function(config.input, tuple(classes))
    except (Exception, SystemExit) as error:
        wanted = "a keras.Model from build(input, classes)"
        raise _wrong(config, "raised an error", wanted, _told(error)) from error


@contextmanager
def _importable(config: Pipeline) -> Iterator[None]:
    """The YAML's folder first on the path; what was imported for other files is forgotten."""
    files = {str(path.resolve()): sha256(path.read_bytes()) for path in user_code(config).values()}
    if files != _imported:
        for name, module in list(sys.modules.items()):
            origin = getattr(module, "__file__", None)
            if origin and str(Path(origin).resolve()) in _imported:
                del sys.modules[name]
        importlib.invalidate_caches()
        _imported.clear()
        _imported.update(files)
    folder, writes = str(config.folder), sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True  # a .pyc is matched by second and size, and this is the user's folder
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(folder)


def _check_origin(config: Pipeline, module: ModuleType) -> None:
    files = {str(path.resolve()) for path in user_code(config).values()}
    origin = getattr(module, "__file__", None)
    if origin is None or str(Path(origin).resolve()) not in files:
        raise _wrong(
            config, "has the name of another module", "a module beside the YAML with a name of its own",
            f"{module.__name__} is {origin or 'built in'}",
        )  # fmt: skip


def _check(config: Pipeline, model: Any, count: int, example: NDArray[Any]) -> None:
    import numpy as np

    module = keras()
    if not isinstance(model, module.Model):
        raise _wrong(config, "does not return a model", "a keras.Model", type(model).__name__)
    try:
        outputs = model(example, training=False)
        shape = tuple(outputs.shape)
        values = module.ops.convert_to_numpy(outputs)
    except Exception as error:
        wanted = f"a model for (N, {', '.join(map(str, example.shape[1:]))}) {example.dtype}"
        raise _wrong(config, "does not take the input", wanted, _told(error)) from error
    if shape != (2, count):
        received = f"(N, {', '.join(map(str, shape[1:]))})"
        raise _wrong(config, "returns outputs of another shape", f"(N, {count}), one per class", received)
    if not (np.isfinite(values).all() and (values >= 0).all() and np.allclose(values.sum(1), 1, atol=1e-3)):
        raise _wrong(
            config, "does not return probabilities", "rows that sum to 1, as softmax gives", f"sums {values.sum(1)}"
        )


def _told(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def _wrong(config: Pipeline, what: str, expected: str, received: str) -> ConfigurationError:
    return ConfigurationError(
        f"model.function {config.model.function} {what}",
        expected=expected,
        received=received,
        hint="docs/bring-your-own-data.md shows a model function",
    )
