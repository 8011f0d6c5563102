"""The rows of fits whose version is not recorded yet: what their statuses under `scratch/` and their manifests say.

Once the version, or one of its folds, has its file in a table, these rows are that file's. So whoever reads both reads
these first, and leaves out those that have a file by then: each row is read once. What does not belong here: the files
(`table_sources`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from leptonflow.core import store_keys
from leptonflow.storage.store import Store
from schemas.errors import NotFound

if TYPE_CHECKING:
    from leptonflow.tables.table_files import Row
    from schemas.fit_status import FitStatus
    from schemas.records import FitResult

LOOKS = 3  # at a status, which is replaced every few seconds


def epochs(store: Store) -> dict[tuple[str, str], list[Row]]:
    """The rows of `epochs` of each fit of a version with one under way, by the keys that their file can have."""
    found: dict[tuple[str, str], list[Row]] = {}
    for pipeline in store.folders(store_keys.SCRATCH):
        for version in store.folders(store_keys.scratch_pipeline_folder(pipeline)):
            statuses = _statuses(store, pipeline, version)
            if statuses:
                whole = store_keys.table_key("epochs", pipeline, version)
                for fold, rows in _rows(statuses, _finished(store, pipeline, version)):
                    found[whole, store_keys.fold_table_key("epochs", pipeline, version, fold)] = rows
    return found


def _rows(
    statuses: dict[int | None, FitStatus], finished: dict[int | None, FitResult]
) -> list[tuple[int | None, list[Row]]]:
    """Of a fit that is finished by now its manifest's, of the others those of its status."""
    any_one = next(iter(statuses.values()))
    same = {"pipeline": any_one.pipeline, "version": any_one.version, "run_id": any_one.run_id}
    values = {fold: status.values for fold, status in statuses.items()}
    values |= {fold: fit.epochs for fold, fit in finished.items()}
    ordered = sorted(values.items(), key=lambda each: (each[0] is None, each[0] or 0))
    return [(fold, [{**same, "fold": fold, **value.model_dump()} for value in of]) for fold, of in ordered]


def _statuses(store: Store, pipeline: str, version: str) -> dict[int | None, FitStatus]:
    from schemas.fit_status import FitStatus  # pydantic, which a query need not wait for

    folder = store_keys.scratch_folder(pipeline, version)
    for _ in range(LOOKS):
        keys = [key for key in store.keys(folder) if store_keys.is_fit_status(key)]
        with suppress(NotFound, ValueError):  # replaced since it was listed, or none that this release knows
            every = [FitStatus.model_validate_json(data) for data in store.get_many(keys)]
            return {status.fold: status for status in every}  # the last by name is the newest
    return {}


def _finished(store: Store, pipeline: str, version: str) -> dict[int | None, FitResult]:
    from schemas.records import FitResult

    there = store.keys(store_keys.fits_folder(pipeline, version))
    keys = [key for key in there if key.endswith("/manifest.json")]
    with suppress(ValueError):  # damaged: whoever goes on with the run is told
        every = [FitResult.model_validate_json(data) for data in store.get_many(keys)]
        return {fit.fold: fit for fit in every}
    return {}
