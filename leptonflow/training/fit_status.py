"""How far a fit under way is: in a few words for who watches it, and as an object under `scratch/` for who looks later.

What does not belong here: who shows it (cli, flows), and the rows that it gives to tables (tables.fits_under_way).
"""

from __future__ import annotations

import time
from contextlib import suppress

from leptonflow.core import clock, progress, store_keys
from leptonflow.core.store_keys import fit_status_folder, fit_status_key
from leptonflow.storage.store import Store
from leptonflow.training.fit_cost import peak_memory
from leptonflow.training.fit_state import FitPlace, FitState
from schemas.errors import AlreadyExists, StoreError
from schemas.fit_status import FitStatus

TOLD_SECONDS = 1.0  # between two times that it is said
WRITTEN_SECONDS = 5.0  # and written: to a server some 20 ms away, half a percent of the time


class Teller:
    """Says how far one fit is, again and again, where it is not too soon for it."""

    def __init__(self, place: FitPlace) -> None:
        self._place = place
        self._told_at: float | None = None
        self._written_at = 0.0
        self._written: str | None = None

    def begin(self) -> None:
        """Remove what an earlier process of this fit said last, which may have come further."""
        place = self._place
        with suppress(StoreError):
            for key in place.store.keys(fit_status_folder(place.pipeline, place.version, place.fold)):
                place.store.remove_scratch(key)

    def tell(self, state: FitState) -> None:
        """Say and write it, if it is time to. Call it between two dispatches."""
        now = time.monotonic()
        if self._told_at is None:  # the first step, which traced the model
            self._told_at = self._written_at = now
        if now - self._told_at < TOLD_SECONDS:
            return
        self._told_at = now
        progress.detail(self._place.stage, words(_status(self._place, state)))
        if now - self._written_at >= WRITTEN_SECONDS:
            self._written_at = now
            self.write(state)

    def write(self, state: FitState) -> None:
        """Write it, and remove what was written before. A store that does not take it is not told of."""
        place = self._place
        key = fit_status_key(place.pipeline, place.version, place.fold, state.number)
        with suppress(StoreError):  # nothing depends on it
            with suppress(AlreadyExists):  # of another process that computes the same
                place.store.create(key, _status(place, state).model_dump_json().encode())
            if self._written not in (None, key):
                place.store.remove_scratch(str(self._written))
            self._written = key


def _status(place: FitPlace, state: FitState) -> FitStatus:
    meter, took = state.meter, time.perf_counter() - state.began
    spent = meter.waiting + meter.stepping
    done = state.steps / (state.extent[0] * state.extent[1])
    held_out = [each for each in state.values if each.metric.startswith(("val_", "stop_"))]
    last = [each for each in held_out if each.epoch == state.epoch - 1]
    followed = next((each for each in (*(e for e in last if e.metric != "val_loss"), *last)), None)
    return FitStatus(
        pipeline=place.pipeline, version=place.version, run_id=place.run_id, fold=place.fold, at=clock.now(),
        epoch=min(state.epoch, state.extent[0]), epochs=state.extent[0], done=done,
        loss=state.sums["loss"] / state.seen if state.seen and "loss" in state.sums else None,
        metric=None if followed is None else followed.metric, value=None if followed is None else followed.value,
        examples_per_second=meter.examples / spent if spent > 0 else 0.0,
        seconds=took, left=took / done - took if state.steps > 1 else None, peak_memory=peak_memory(),
        values=tuple(state.values),
    )  # fmt: skip


def words(status: FitStatus) -> str:
    """Such as: epoch 3 of 10, loss 0.4123, val_accuracy 0.8710, 2,604 examples/s, 80 s left, 1.1 GiB."""
    parts = [f"epoch {status.epoch} of {status.epochs}"]
    parts += [] if status.loss is None else [f"loss {status.loss:.4f}"]
    parts += [] if status.value is None else [f"{status.metric} {status.value:.4f}"]
    parts.append(f"{status.examples_per_second:,.0f} examples/s")
    if status.left is not None:
        left = status.left
        parts.append(f"{left:.0f} s left" if left < 120 else f"{left // 60:,.0f} min left")
    parts.append(f"{status.peak_memory / 2**30:.1f} GiB")
    return ", ".join(parts)


def newest(store: Store, pipeline: str, version: str) -> FitStatus | None:
    """What the fits of a version said last; None where none is under way, or none was for long enough."""
    found = _said(store, store_keys.scratch_folder(pipeline, version))
    return max(found, key=lambda status: status.at, default=None)


def largest_memory(store: Store, pipeline: str) -> int | None:
    """The largest memory of a process, in bytes, that a fit said which was never finished; None where none did."""
    found = _said(store, store_keys.scratch_pipeline_folder(pipeline))
    return max((status.peak_memory for status in found), default=None)


def _said(store: Store, folder: str) -> list[FitStatus]:
    found: list[FitStatus] = []
    with suppress(StoreError):
        for key in store.keys(folder):
            if store_keys.is_fit_status(key):
                with suppress(StoreError, ValueError):  # replaced meanwhile, or none that this release knows
                    found.append(FitStatus.model_validate_json(store.get(key)))
    return found
