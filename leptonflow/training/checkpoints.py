"""Checkpoints of a fit that is under way: what another process needs to go on from there, under `scratch/`.

One object holds all of it: the variables of the model and its optimizer (random layers keep their state there too),
early stopping's and plateau's state, and where the fit is. Its name holds its own sha256. What does not belong here:
what an epoch is made of (epochs), and what a finished fit leaves (model_fits).
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import progress, store_keys
from leptonflow.core.hashing import sha256
from leptonflow.keras_runtime import keras_models
from leptonflow.storage.objects import recorded
from leptonflow.storage.store import Store
from leptonflow.training.fit_cost import Meter
from leptonflow.training.fit_state import FitPlace, FitState
from leptonflow.training.fit_status import Teller
from leptonflow.training.workspace import Models
from schemas.errors import AlreadyExists, Damaged, NotFound, StoreError, TimeLimit, TrainingError
from schemas.records import EpochValue

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

FOLLOWED = ("best", "wait", "best_epoch", "stopped_epoch", "cooldown_counter")  # the state of Keras's own callbacks

ABANDONED = timedelta(days=7)  # a fit that nobody has gone on with for so long
NOTHING_LOST = "The fit starts from its beginning instead"


class Keeper:
    """The checkpoints of one fit: the newest one alone is kept, and none of a fit that is finished.

    A thread writes them, one at a time, while the fit goes on: the fit waits only for the copy that is written.
    """

    def __init__(self, place: FitPlace, minutes: float, whole: bool = True) -> None:
        """whole: whether a checkpoint could hold the state of the fit; it cannot hold that of callbacks of the user."""
        self._place = place
        self.stage = place.stage
        self._seconds = 60 * minutes
        self._whole = whole
        self._saved_at = time.monotonic()
        self._saved: tuple[int, int] | None = None
        self._teller = Teller(place)
        self._state: FitState | None = None  # while it is under way
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        self.newest: str | None = None

    def resume(self, state: FitState) -> None:
        """Bring a fit that has just begun to where its newest checkpoint was made, if there is one that is its own."""
        self._state = state
        self._teller.begin()
        for key in reversed(self._keys()) if self._whole else ():
            try:
                data = recorded(self._place.store, key, _digest(key), NOTHING_LOST)
                _restore(_decoded(data, key), state, key)
            except (Damaged, NotFound) as error:  # a store that is away is waited for by who asked for the fit
                progress.note(f"a checkpoint of {self._place.stage} is ignored: {error.line()}")
                continue
            self.newest, self._saved = key, (state.epoch, state.step)
            steps = f"step {state.step} of {state.extent[1]}" if state.step else "its beginning"
            progress.note(f"{self._place.stage} goes on from a checkpoint: epoch {state.epoch}, {steps}")
            return

    def between(self, state: FitState) -> None:
        """Begin to save the fit and say how far it is, each if it is time to.

        Call it between two dispatches, when the variables are those of `state`. What the last write raised is raised
        here, or at the end.
        """
        self._teller.tell(state)
        if self._pending is not None and self._pending.done():
            self.settle()
        if self._pending is None and time.monotonic() - self._saved_at >= self._seconds:
            self._begin(state)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Where the fit is ended in this block (SIGTERM, Ctrl-C, a time limit), it is saved as it stands.

        One that diverged leaves the checkpoint of before, and its error names it.
        """
        try:
            yield
            self.settle()
        except (progress.Stopped, TimeLimit):
            self.settle()
            state = self._state
            if state is not None and (state.epoch, state.step) not in ((1, 0), self._saved):
                self.save(state)
            raise
        except TrainingError as error:
            self.settle()
            if self.newest is not None:
                error.hint = f"{error.hint}. The last checkpoint before it is {self.newest}"
            raise
        finally:
            self._writer.shutdown()

    def save(self, state: FitState) -> None:
        """Write a checkpoint and remove those before it. A store that does not take it is told of, and no more."""
        self.settle()
        self._begin(state)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is being written. Raises what the write raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _begin(self, state: FitState) -> None:
        self._saved_at = time.monotonic()
        if not self._whole:
            progress.note(f"no checkpoint of {self.stage}: model.callbacks may have state that it cannot hold")
            return
        where = (state.epoch, state.step)
        self._pending = self._writer.submit(copy_context().run, self._write, _copied(state), where)

    def _write(self, copied: _Copied, at: tuple[int, int]) -> None:
        place = self._place
        if not copied.finite():  # the checkpoint before is the last good one
            progress.note(f"no checkpoint of {place.stage}: a weight or an optimizer value is not a finite number")
            return
        data = copied.encoded()
        key = store_keys.checkpoint_key(place.pipeline, place.version, place.fold, *at, sha256(data))
        try:
            with suppress(AlreadyExists):  # under this name lie these bytes
                place.store.create(key, data)
        except StoreError as error:
            progress.note(f"a checkpoint of {place.stage} could not be written: {error.line()}")
            return
        self.newest, self._saved = key, at
        self.clear(but=key)

    def clear(self, but: str | None = None) -> None:
        """Remove the checkpoints, all of them where the fit is finished."""
        try:
            for key in self._keys():
                if key != but:
                    self._place.store.remove_scratch(key)
        except StoreError as error:
            progress.note(f"a checkpoint of {self._place.stage} could not be removed: {error.line()}")

    def _keys(self) -> list[str]:
        place = self._place
        return place.store.keys(store_keys.checkpoints_folder(place.pipeline, place.version, place.fold))


def sweep(store: Store, pipeline: str, version: str) -> None:
    """Remove what the fits of a recorded version left under `scratch/`, and what nobody has gone on with for long."""
    with _tolerated():
        for other in store.folders(store_keys.scratch_pipeline_folder(pipeline)):
            folder = store_keys.scratch_folder(pipeline, other)
            changed = None if other == version else store.modified(folder)
            if other == version or (changed is not None and datetime.now(UTC) - changed > ABANDONED):
                _remove_all(store, folder)


def sweep_folds(store: Store, pipeline: str, version: str, folds: int) -> None:
    """Remove what so many folds left there, and nothing of the final fit: a run of that version may go on with it."""
    with _tolerated():
        for fold in range(folds):
            _remove_all(store, store_keys.checkpoints_folder(pipeline, version, fold))
            _remove_all(store, store_keys.fit_status_folder(pipeline, version, fold))


@contextmanager
def _tolerated() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        progress.note(f"old checkpoints could not be removed: {error.line()}")


def _remove_all(store: Store, folder: str) -> None:
    for key in store.keys(folder):
        store.remove_scratch(key)


def _digest(key: str) -> str:
    return key.rpartition("-")[2].removesuffix(".npz")


def _variables(models: Models) -> Iterator[tuple[str, Any]]:
    for number, variable in enumerate(models.trainer.variables):
        yield f"model-{number}", variable
    for number, variable in enumerate(models.trainer.optimizer.variables):
        yield f"optimizer-{number}", variable


class _Copied(NamedTuple):
    """A fit as it stood, which does not change with it. learned: the names of what a step of training writes."""

    arrays: Arrays
    learned: Sequence[str]

    def finite(self) -> bool:
        """Whether what is learned is; a layer's constants, such as a mask of -inf, are what they are."""
        import numpy as np

        return all(np.isfinite(self.arrays[name]).all() for name in self.learned)

    def encoded(self) -> bytes:
        """The checkpoint as an .npz file, without pickles."""
        import numpy as np

        sink = BytesIO()
        np.savez(sink, allow_pickle=False, **self.arrays)
        return sink.getvalue()


def _copied(state: FitState) -> _Copied:
    import numpy as np

    convert = keras_models.keras().ops.convert_to_numpy
    variables = dict(_variables(state.models))
    arrays: Arrays = {name: _own(convert(variable)) for name, variable in variables.items()}
    learned = [name for name, variable in variables.items() if name.startswith("optimizer-") or variable.trainable]
    for number, follower in enumerate(state.followers):
        for place, array in enumerate(getattr(follower, "best_weights", None) or ()):
            arrays[f"best-{number}-{place}"] = array
    now = time.perf_counter()
    told = {
        "extent": state.extent, "epoch": state.epoch, "step": state.step, "sums": state.sums,
        "seen": state.seen, "values": [value.model_dump() for value in state.values], "meter": asdict(state.meter),
        "seconds": now - state.began, "epoch_seconds": now - state.epoch_began,
        "followers": [_followed(each) for each in state.followers],
    }  # fmt: skip
    arrays["state"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    return _Copied(arrays, learned)


def _own(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.flags.owndata else array.copy()  # some backends give a view of what they write into


def _followed(follower: Any) -> dict[str, float | None]:
    found = {name: getattr(follower, name) for name in FOLLOWED if hasattr(follower, name)}
    return {name: None if value is None else float(value) for name, value in found.items()}


def _decoded(data: bytes, key: str) -> Arrays:
    import numpy as np

    try:
        with np.load(BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise _not_this_fits(key, "an .npz file", str(error)) from None


def _restore(arrays: Arrays, state: FitState, key: str) -> None:
    """Raises Damaged, and changes nothing, where the checkpoint is not one of this fit."""
    variables = dict(_variables(state.models))
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    own = {name: array.shape for name, array in arrays.items() if name.startswith(("model-", "optimizer-"))}
    if own != shapes:
        raise _not_this_fits(key, f"{len(shapes)} variables of the model's shapes", f"{len(own)}, or others")
    try:
        told = json.loads(arrays["state"].tobytes())
        if tuple(told["extent"]) != state.extent or len(told["followers"]) != len(state.followers):
            raise ValueError(f"{told['extent']} epochs and steps, {len(told['followers'])} callbacks")
        values = [EpochValue.model_validate(value) for value in told["values"]]
        meter = Meter(**told["meter"])
        took, epoch_took = float(told["seconds"]), float(told["epoch_seconds"])
        epoch, step, seen, sums = int(told["epoch"]), int(told["step"]), int(told["seen"]), dict(told["sums"])
    except (ValueError, KeyError, TypeError) as error:
        raise _not_this_fits(key, f"{state.extent[0]} epochs of {state.extent[1]} steps", str(error)) from None
    for name, variable in variables.items():
        variable.assign(_as_of(arrays[name], variable))
    for number, (follower, its) in enumerate(zip(state.followers, told["followers"], strict=True)):
        _follow(follower, its, [arrays[n] for n in sorted(_best(arrays, number), key=_place_of)])
    now = time.perf_counter()
    state.epoch, state.step, state.seen, state.sums, state.values, state.meter = epoch, step, seen, sums, values, meter
    state.began, state.epoch_began, state.before = now - took, now - epoch_took, took


def _best(arrays: Arrays, number: int) -> list[str]:
    return [name for name in arrays if name.startswith(f"best-{number}-")]


def _place_of(name: str) -> int:
    return int(name.rpartition("-")[2])


def _follow(follower: Any, told: dict[str, float | None], best: list[NDArray[Any]]) -> None:
    whole: dict[str, Callable[[float], float]] = dict.fromkeys(FOLLOWED, int)
    whole["best"] = float
    for name, value in told.items():
        setattr(follower, name, None if value is None else whole[name](value))
    if best:
        follower.best_weights = best


def _as_of(array: NDArray[Any], variable: Any) -> NDArray[Any]:
    """The array with the variable's type: NumPy's files keep the bytes of those that it does not know, as bfloat16."""
    import numpy as np

    if array.dtype.kind != "V":
        return array
    return array.view(np.asarray(keras_models.keras().ops.convert_to_numpy(variable)).dtype)


def _not_this_fits(key: str, expected: str, received: str) -> Damaged:
    return Damaged(f"{key} is not a checkpoint of this fit", expected=expected, received=received, hint=NOTHING_LOST)
