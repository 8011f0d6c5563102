"""The user's own code for a model: functions of `model:`, written `module:function`, found from the YAML's folder.

function   build(input, classes) -> a keras.Model, compiled or not; input is the section of the YAML. With
           model.weights it is build(input, classes, weights): the path of that file on this machine
compile    compile(model, training) calls model.compile(...); training is the section of the YAML
callbacks  callbacks(training) -> the keras.callbacks.Callback of one fit, made anew for each
custom_objects  a mapping, or a function () -> one, from names to the classes and functions of the model that are
           not Keras's own

Importing them, calling them and checking what they give belong here. Which files a digest covers is said in
`code_digests.user_code`; what is trained with them, in `training`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from leptonflow.core import declared_files, files
from leptonflow.core.code_digests import user_code
from leptonflow.core.hashing import sha256
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.workloads import user_weights
from schemas import own_model
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, LeptonflowError
from schemas.training import check_compilation

if TYPE_CHECKING:
    from numpy.typing import NDArray

_imported: dict[str, str] = {}  # file: sha256, of the user's code that this process imported last


def build(config: Pipeline, classes: Sequence[str], example: NDArray[Any]) -> Any:
    """What model.function gives: a keras.Model from N examples to (N, classes) probabilities.

    example: what the model takes of two examples.
    Raises ConfigurationError where it gives anything else, or raises.
    """
    weights = user_weights.path(config)
    named = {} if weights is None else {"weights": str(weights)}
    wanted = f"a keras.Model from build(input, classes{', weights' if named else ''})"
    model = _call(config, "function", wanted, config.input, tuple(classes), **named)
    _check(config, model, len(classes), example)
    return model


def compiled(config: Pipeline, model: Any) -> bool:
    """Whether the user's own code compiles the model: model.compile, which is called here, or model.function.

    Raises ConfigurationError where keys of `training:` have no effect then, or model.compile does not compile.
    """
    own = own_model.functions(config.model)
    if "compile" in own:
        _call(config, "compile", "compile(model, training) to call model.compile(...)", model, config.training)
        if not model.compiled:
            raise _wrong(config, "compile", "does not compile the model", "a call of model.compile(...)", "none")
    elif "function" not in own or not model.compiled:
        return False
    check_compilation(config.training, "model.compile" if "compile" in own else "model.function")
    return True


def compilation(config: Pipeline, model: Any) -> str | None:
    """How the user's own code compiles a model that was just built, in words; None where it does not."""
    if not compiled(config, model):
        return None
    loss = model.loss if isinstance(model.loss, str) else getattr(model.loss, "name", None) or repr(model.loss)
    return f"compiled by the user's own code: optimizer {type(model.optimizer).__name__}, loss {loss}"


def callbacks(config: Pipeline) -> list[Any]:
    """The Keras callbacks of one fit, as model.callbacks makes them; none without it. Raises ConfigurationError."""
    if "callbacks" not in own_model.functions(config.model):
        return []
    wanted = "a list of keras.callbacks.Callback from callbacks(training)"
    found = _call(config, "callbacks", wanted, config.training)
    kind = keras().callbacks.Callback
    if not isinstance(found, list | tuple) or not all(isinstance(each, kind) for each in found):
        each = [type(one).__name__ for one in found] if isinstance(found, list | tuple) else type(found).__name__
        raise _wrong(config, "callbacks", "does not return callbacks", wanted, str(each))
    return list(found)


def objects(config: Pipeline) -> dict[str, Any]:
    """Classes and functions of the model that are not Keras's own, by name; none without model.custom_objects."""
    if "custom_objects" not in own_model.functions(config.model):
        return {}
    wanted = "a mapping of names to classes and functions"
    found = _call(config, "custom_objects", wanted)
    if not isinstance(found, Mapping) or not all(isinstance(k, str) and callable(v) for k, v in found.items()):
        raise _wrong(config, "custom_objects", "is no such mapping", wanted, repr(found)[:100])
    return dict(found)


def contents(config: Pipeline) -> dict[str, str]:
    """The sha256 of every file of the user's that a fit depends on, by its path from the YAML's folder."""
    code = {name: files.digest(path) for name, path in user_code(config).items()}
    return code | declared_files.digests(config)


def changes_the_model(config: Pipeline) -> bool:
    """Whether a fit may leave the model otherwise than it was built: with other layers trainable, compiled anew."""
    return bool({"compile", "callbacks"} & own_model.functions(config.model).keys())


@contextmanager
def blamed(config: Pipeline) -> Iterator[None]:
    """An error in this block, in which a model is trained, is told as one of the user's code, if there is any.

    That code may import what lies beside the YAML in it, such as in a callback.
    """
    try:
        with importing(config):
            yield
    except LeptonflowError:
        raise
    except (Exception, SystemExit) as error:
        own = own_model.functions(config.model)
        if not own:
            raise
        named = ", ".join(f"model.{key} {name}" for key, name in own.items())
        raise ConfigurationError(
            f"the model cannot be trained with {named}",
            expected="a model, a loss, metrics and callbacks that fit the targets, one-hot rows (N, classes)",
            received=_told(config, error),
            hint="docs/your-own-model.md shows them",
        ) from error


@contextmanager
def importing(config: Pipeline) -> Iterator[None]:
    """In this block the user's functions, layers and callbacks may import what lies beside the YAML."""
    folder = str(config.folder)
    if not own_model.functions(config.model):
        yield
        return
    sys.path.append(folder)  # the last: other threads import too
    try:
        yield
    finally:
        sys.path.remove(folder)


def _call(config: Pipeline, key: str, expected: str, *given: Any, **named: Any) -> Any:
    """What the function of that key gives for these arguments."""
    module_name, name = own_model.functions(config.model)[key].split(":")
    keras()  # first: the user's own import of it would set neither its devices nor its types
    with _importable(config):
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # a script's own command line ends the process
            raise _wrong(config, key, "cannot be imported", "a module that imports", _told(config, error)) from error
        _check_origin(config, key, module)
        function = getattr(module, name, None)
        if key == "custom_objects" and isinstance(function, Mapping):
            return function
        if not callable(function):
            names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            there = f"a function in {module_name}: {', '.join(names) or 'none'}"
            raise _wrong(config, key, "is not there", there, name)
        _check_signature(config, key, function, expected, given, named)
        try:
            return function(*given, **named)
        except (Exception, SystemExit) as error:
            raise _wrong(config, key, "raised an error", expected, _told(config, error)) from error


def _check_signature(
    config: Pipeline,
    key: str,
    function: Callable[..., Any],
    expected: str,
    given: Sequence[Any],
    named: Mapping[str, Any],
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        name = getattr(function, "__name__", key)
        raise _wrong(config, key, f"takes other arguments ({error})", expected, f"{name}{signature}") from None


@contextmanager
def _importable(config: Pipeline) -> Iterator[None]:
    """The YAML's folder first on the path; what was imported for other files is forgotten."""
    found = {str(path.resolve()): sha256(path.read_bytes()) for path in user_code(config).values()}
    if found != _imported:
        for name, module in list(sys.modules.items()):
            origin = getattr(module, "__file__", None)
            if origin and str(Path(origin).resolve()) in _imported:
                del sys.modules[name]
        importlib.invalidate_caches()
        _imported.clear()
        _imported.update(found)
    folder, writes = str(config.folder), sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True  # a .pyc is matched by second and size, and this is the user's folder
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(folder)


def _check_origin(config: Pipeline, key: str, module: ModuleType) -> None:
    own = {str(path.resolve()) for path in user_code(config).values()}
    origin = getattr(module, "__file__", None)
    if origin is None or str(Path(origin).resolve()) not in own:
        raise _wrong(
            config, key, "has the name of another module", "a module beside the YAML with a name of its own",
            f"{module.__name__} is {origin or 'built in'}",
        )  # fmt: skip


def _check(config: Pipeline, model: Any, count: int, example: NDArray[Any]) -> None:
    import numpy as np

    def wrong(what: str, expected: str, received: str) -> ConfigurationError:
        return _wrong(config, "function", what, expected, received)

    module = keras()
    if not isinstance(model, module.Model):
        raise wrong("does not return a model", "a keras.Model", type(model).__name__)
    try:
        outputs = model(example, training=False)
    except Exception as error:
        wanted = f"a model for (N, {', '.join(map(str, example.shape[1:]))}) {example.dtype}"
        raise wrong("does not take the input", wanted, _told(config, error)) from error
    if not module.ops.is_tensor(outputs):
        received = f"a {type(outputs).__name__} of {len(outputs)}" if hasattr(outputs, "__len__") else repr(outputs)
        raise wrong("does not return one output", f"(N, {count}), one per class", received)
    shape, values = tuple(outputs.shape), module.ops.convert_to_numpy(outputs)
    if shape != (2, count):
        received = f"(N, {', '.join(map(str, shape[1:]))})"
        raise wrong("returns outputs of another shape", f"(N, {count}), one per class", received)
    if not (np.isfinite(values).all() and (values >= 0).all() and np.allclose(values.sum(1), 1, atol=1e-3)):
        raise wrong("does not return probabilities", "rows that sum to 1, as softmax gives", f"sums {values.sum(1)}")


def _told(config: Pipeline, error: BaseException) -> str:
    """The end of the error's traceback in one line, and the last line of the user's own code that led to it."""
    text = " ".join(str(error).split())  # Keras says in the third line which shapes differ
    what = f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__
    own = {str(path.resolve()): name for name, path in user_code(config).items()}
    if isinstance(error, SyntaxError):
        return what  # it names file and line itself
    frames = [(str(Path(each.filename).resolve()), each.lineno) for each in traceback.extract_tb(error.__traceback__)]
    where = next((f" ({own[name]}:{line})" for name, line in reversed(frames) if name in own), "")
    return what + where


def _wrong(config: Pipeline, key: str, what: str, expected: str, received: str) -> ConfigurationError:
    return ConfigurationError(
        f"model.{key} {own_model.functions(config.model)[key]} {what}",
        expected=expected,
        received=received,
        hint="docs/your-own-model.md shows it",
    )
