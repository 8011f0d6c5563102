"""The flow `score` on a real Prefect server: its state, its page, and the rows on the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leptonflow.keras_runtime.keras_models import keras
from leptonflow.storage.address import open_store
from leptonflow.workloads.image_classification import cnn
from schemas.image_classification import ImageModel
from tests import small_packages
from tests.e2e.helpers import good, pipeline, working_folder
from tests.verdicts import promoted_by_hand


@pytest.fixture
def work(tmp_path: Path, prefect_folder: Path) -> Iterator[Path]:
    with working_folder(tmp_path / "work", prefect_folder) as folder:
        yield folder


def test_a_run_scores_the_source_of_the_yaml(work: Path) -> None:
    good(work / "in", ("any",), 20)
    store = open_store(str(work / "store"))
    keras().utils.set_random_seed(1)
    sha256 = small_packages.put_model(
        store, "v1", cnn.build(ImageModel(filters=(4,), dense=4), (8, 8, 1), 2), (8, 8, 1)
    )
    promoted_by_hand(store, small_packages.PIPELINE, "v1", sha256)
    path = pipeline(work, name=small_packages.PIPELINE, score={"source": "in"})
    document, state = run(path, work / "store")
    assert (state.name, state.message) == ("scored", f"20 rows, by version v1 ({document['runtime']})")
    assert document["rows"] == 20 and store.size(document["files"][0]["key"])
    pipeline(work, name=small_packages.PIPELINE)
    _, failed = run(path, work / "store")
    assert failed.is_failed() and "has nothing to score" in str(failed.message)


def run(path: Path, store: Path) -> tuple[Any, Any]:
    """(the run's document or error, its final state)."""
    from flows import local_run

    with local_run.prefect():
        from flows.score import score

        state = score(pipeline=str(path), store=str(store), return_state=True)  # type: ignore[call-overload]
        return state.result(raise_on_failure=False), state
