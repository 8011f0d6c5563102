"""A new champion replaces what is served between two batches: no request is lost, a broken one replaces nothing."""

from __future__ import annotations

import gc
import http.client
import json
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from leptonflow.data.dataset.example_sets import Examples
from leptonflow.registry import manual_decisions, package_builder
from leptonflow.storage.directory_store import DirectoryStore
from leptonflow.storage.memory_store import MemoryStore
from schemas.errors import Damaged
from serving import champion_watch, live_models
from serving.app import Options, create_app
from serving.service import Service
from tests import served_champions, small_packages
from tests.served_champions import NAME, SHAPE, config, png, until

CLIENTS = 16


@pytest.fixture(scope="module")
def models() -> list[Any]:
    return [served_champions.model(seed) for seed in (1, 2)]


def load(port: int, requests: int, during: Callable[[], None]) -> tuple[Counter[tuple[int, str]], list[float]]:
    """(statuses and versions, seconds) of requests by clients that keep their connections, while `during` runs."""
    found: Counter[tuple[int, str]] = Counter()
    seconds: list[float] = []
    left, lock = [requests], threading.Lock()
    body = png(1)

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            with lock:
                if left[0] <= 0:
                    break
                left[0] -= 1
            began = time.perf_counter()
            connection.request("POST", f"/v1/{NAME}/predict", body)
            response = connection.getresponse()
            document = json.loads(response.read())
            with lock:
                found[response.status, document.get("version", "")] += 1
                seconds.append(time.perf_counter() - began)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    during()
    for thread in threads:
        thread.join()
    return found, seconds


def swapped(requests: int, models: list[Any]) -> None:
    store = MemoryStore("memory://swapping")
    served_champions.promote(store, "one", models[0])
    small_packages.put_model(store, "two", models[1], SHAPE)
    app = create_app(store, [config()], Options(poll=0.05))
    with served_champions.listening(app) as port:
        service = app.state.services[NAME]
        until(lambda: service.live is not None)

        def back_and_forth() -> None:
            manual_decisions.promote(store, NAME, "two", "better", "tester", small_packages.fit_to_run)
            until(lambda: service.live.version == "two")
            manual_decisions.rollback(store, NAME, None, "worse", "tester", small_packages.fit_to_run)
            until(lambda: service.live.version == "one")

        found, _ = load(port, requests, back_and_forth)
    assert sum(found.values()) == requests
    assert {status for status, _ in found} == {200}, found
    assert service.swaps == 2


def test_a_swap_under_load_loses_no_request(models: list[Any]) -> None:
    swapped(400, models)


@pytest.mark.slow
def test_swaps_under_load_lose_none_of_ten_thousand(models: list[Any]) -> None:
    swapped(10_000, models)


def test_a_rollback_is_served_within_seconds(tmp_path: Path, models: list[Any]) -> None:
    """With the poll that a server has."""
    store = DirectoryStore(tmp_path.as_uri())
    served_champions.promote(store, "one", models[0])
    served_champions.promote(store, "two", models[1])
    app = create_app(store, [config()])
    with TestClient(app) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post(f"/v1/{NAME}/predict", content=png(1)).json()["version"] == "two"
        manual_decisions.rollback(store, NAME, None, "worse", "tester", small_packages.fit_to_run)
        began = time.monotonic()
        until(lambda: client.post(f"/v1/{NAME}/predict", content=png(1)).json()["version"] == "one", 20)
        assert time.monotonic() - began < 5


def test_a_broken_version_replaces_nothing(models: list[Any]) -> None:
    """One whose model predicts something else than its package records, and one that Keras cannot load."""
    store = MemoryStore("memory://broken")
    served_champions.promote(store, "one", models[0])
    pixels = np.random.default_rng(3).integers(0, 256, (5, *SHAPE), np.uint8)
    examples = Examples([str(n) for n in range(5)], np.zeros(5, np.int64), pixels, [], [])
    others = package_builder.write_reference(config(), models[0], None, examples)
    small_packages.put_model(store, "liar", models[1], SHAPE, {"reference.parquet": others}.items())
    small_packages.put(store, "garbage")
    app = create_app(store, [config()], Options(poll=0.05))
    with TestClient(app) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        service = app.state.services[NAME]
        for version in ("liar", "garbage"):
            manual_decisions.promote(store, NAME, version, "trust me", "tester", small_packages.fit_to_run)
            until(lambda version=version: version in str(service.problem))  # type: ignore[misc]
            row = client.get("/readyz").json()["pipelines"][0]
            assert (row["ready"], row["version"], row["champion"]) == (True, "one", version)
            assert client.post(f"/v1/{NAME}/predict", content=png(1)).json()["version"] == "one"
            text = client.get("/metrics").text
            assert f"{version} cannot be served, one is still served" in text
            assert f'leptonflow_serves_champion{{pipeline="{NAME}"}} 0.0' in text
        manual_decisions.rollback(store, NAME, "one", "broken", "tester", small_packages.fit_to_run)
        until(lambda: service.problem is None)
        assert service.swaps == 0 and service.failed_loads == 2


def test_a_version_that_is_tried_again_and_again_leaves_no_model_of_each_try(
    models: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Keras' models do, this one holds itself: only a collection of garbage frees it."""
    store, tries = MemoryStore("memory://again"), list[Any]()
    served_champions.promote(store, "one", models[0])

    def fails(*_: Any) -> Any:
        assert not any(each() for each in tries), "the model of the try before is in memory"

        def model() -> None: ...

        model.__dict__["model"] = model
        tries.append(weakref.ref(model))
        raise Damaged("it predicts something else")

    monkeypatch.setattr(live_models, "load", fails)
    monkeypatch.setattr(champion_watch, "AGAIN", 0)
    service = Service(config())
    watch = champion_watch.Watch(store, [service], lambda _: None, lambda _: None)
    gc.disable()  # none but its own
    try:
        for _ in range(3):
            watch._look(service)
    finally:
        gc.enable()
    assert service.failed_loads == 3 and "something else" in str(service.problem)
