"""The rows of fits whose version is not recorded yet: what their statuses under `scratch/` and their manifests say.

Once the version has its file in a table, these rows are that file's. So whoever reads both reads these first, and
leaves out those of a version that has its file by then: each row is read once. What does not belong here: the files
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


def epochs(store: Store) -> dict[str, list[Row]]:
    """The rows of `epochs` of each version with a fit under way, by the key that their file will have."""
    found: dict[str, list[Row]] = {}
    for pipeline in store.folders(store_keys.SCRATCH):
        for version in store.folders(store_keys.scratch_pipeline_folder(pipeline)):
            statuses = _statuses(store, pipeline, version)
            if statuses:
                key = store_keys.table_key("epochs", pipeline, version)
                found[key] = _rows(statuses, _finished(store, pipeline, version))
    return found


def _rows(statuses: dict[int | None, FitStatus], finished: dict[int | None, FitResult]) -> list[Row]:
    """Of a fit that is finished by now its manifest's, of the others those of its status."""
    any_one = next(iter(statuses.values()))
    same = {"pipeline": any_one.pipeline, "version": any_one.version, "run_id": any_one.run_id}
    values = {fold: status.values for fold, status in statuses.items()}
    values |= {fold: fit.epochs for fold, fit in finished.items()}
    ordered = sorted(values.items(), key=lambda each: (each[0] is None, each[0] or 0))
    return [{**same, "fold": fold, **value.model_dump()} for fold, of in ordered for value in of]


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
