"""The flow `monitor` on a real Prefect server: its states, the event that asks for a retraining, once for a cause."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leptonflow.core.pipeline_files import load_config
from leptonflow.monitoring import drift_records
from leptonflow.storage.address import open_store
from schemas.arrivals import drift_event
from tests import served_champions
from tests.e2e.helpers import pipeline, working_folder
from tests.unit.test_drift_looks import VERSION, commit, serve


@pytest.fixture
def work(tmp_path: Path, prefect_folder: Path) -> Iterator[Path]:
    with working_folder(tmp_path / "work", prefect_folder) as folder:
        yield folder


def test_a_drift_asks_for_a_retraining_once(work: Path) -> None:
    from leptonflow.storage.store_identity import store_id

    store = open_store(str(work / "store"))
    path = pipeline(work, name=served_champions.NAME, input=[12, 12, 1], serving={"monitor": {"after": 60, "rows": 60}})
    config = load_config(str(path))
    commit(store, config)
    served_champions.promote(store, VERSION, served_champions.model(0))
    assert run(path, work / "store") == ("unchanged", None)
    serve(store, config, 1, 60, lighter=1.5)
    first = drift_event(store_id(store), config.name, VERSION, 1, "")["id"]
    assert run(path, work / "store", first) == ("drift", True)
    assert run(path, work / "store") == ("unchanged", None), "nothing new was served"
    serve(store, config, 2, 60, lighter=1.5)
    second = drift_event(store_id(store), config.name, VERSION, 2, "")["id"]
    assert run(path, work / "store", second, expected=False) == ("drift", False)
    assert [each.triggers for each in drift_records.newest(store, config.name, 9)] == [False, True]


def run(path: Path, store: Path, event: str | None = None, expected: bool = True) -> tuple[str | None, bool | None]:
    """(the name of the run's final state, whether the server has that event)."""
    from flows import local_run

    with local_run.prefect():
        from prefect.settings import PREFECT_API_URL

        from flows.arrivals.prefect_api import Api
        from flows.monitor import monitor

        state: Any = monitor(pipeline=str(path), store=str(store), return_state=True)  # type: ignore[call-overload]
        assert state.is_completed(), state.message
        api = Api(str(PREFECT_API_URL.value()).rstrip("/"))
        return state.name, None if event is None else _told(api, event, 20 if expected else 1)


def _told(api: Any, event: str, seconds: float) -> bool:
    """Whether the server has the event; it writes events some time after it took them."""
    ends = time.monotonic() + seconds
    while api.occurred(event) is None:
        if time.monotonic() > ends:
            return False
        time.sleep(0.2)
    return True
