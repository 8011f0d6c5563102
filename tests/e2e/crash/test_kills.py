"""A kill at a write, then the same command again: at one write in `make test`, at every one in `make test-all`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest

from leptonflow.core.pipeline_files import load_config
from leptonflow.storage.address import open_store
from tasks.discover import discover
from tests.conftest import fresh_uri
from tests.e2e.crash.scenes import (
    INGEST,
    RETRAIN,
    Place,
    Scene,
    agree,
    copy,
    ingest_scene,
    keys_of,
    retrain_scene,
    survives,
)
from tests.e2e.killing import AFTER, BEFORE, WITHIN, Kill

AT_ONCE = 2  # commands side by side: most of their time goes into imports, on one core each

# Three writes: the command, the key of the write, and when it is killed there. The first is that of `make test`.
THREE = {
    "the snapshot record": (INGEST, AFTER, r"^snapshots/"),
    "a fold's manifest": (RETRAIN, BEFORE, r"/fold-1/manifest\.json$"),
    "a table's file": (RETRAIN, WITHIN, r"^tables/runs/"),
}


@pytest.fixture(scope="module")
def three(
    request: pytest.FixtureRequest, place: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[str]]]:
    """The kills that were asked for, side by side, while the tests wait for each in turn."""
    names = {item.name for item in request.session.items}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {}
        for name, (command, moment, pattern) in THREE.items():
            if any(f"[{name}]" in asked for asked in names):
                scene = request.getfixturevalue("ingested" if command == INGEST else "retrained")
                uri = (tmp_path_factory.mktemp("killed") / "store").as_uri()
                futures[name] = pool.submit(survives, place, scene, uri, Kill(moment, pattern=pattern))
        yield futures
        pool.shutdown(cancel_futures=True)


# --- make test -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write", [pytest.param(name, marks=[pytest.mark.slow] if number else []) for number, name in enumerate(THREE)]
)
def test_a_kill_at_three_writes_loses_nothing(write: str, three: dict[str, Future[str]]) -> None:
    three[write].result()


def test_what_a_kill_left_out_of_a_batch_is_written_by_the_next_retrain(
    place: Place, ingested: Scene, tmp_path: Path
) -> None:
    """A `retrain` that was killed right after the snapshot record finds no batch waiting the next time."""
    before = open_store(ingested.after)
    left_out = ("batches/", "tables/")
    keys = [key for key in keys_of(before) if not key.startswith(left_out)]
    store = open_store((tmp_path / "store").as_uri())
    store.create_many(zip(keys, before.get_many(keys), strict=True))
    plan = discover.fn(store.uri, load_config(str(place.folder / "tiny.yaml")), False)
    assert plan.waiting == () and plan.snapshot is not None
    agree(store.uri, before.uri)


# --- make test-all: every write ----------------------------------------------------------------------


def every(writes: tuple[str, ...], kind: str) -> list[Kill]:
    """A kill for each state that a command can leave a store in: after no write, after one, ... after all.

    After write n and before write n + 1 are one and the same to the store, so the two alternate, and
    on a directory store half of the latter leave a torn temporary file as well.
    """
    kills = []
    for done in range(len(writes) + 1):
        if done % 2 or done == len(writes):
            kills.append(Kill(AFTER, number=done))
        else:
            kills.append(Kill(WITHIN if kind == "directory" and done % 4 else BEFORE, number=done + 1))
    return kills


def waiting(place: Place, new_store: Callable[[], str]) -> Scene:
    """`retrain` where a closed batch waits that nobody has validated."""
    landed, retrained = new_store(), new_store()
    place.killed(landed, INGEST, Kill(AFTER, pattern="/_READY$"))
    copy(landed, retrained)
    return Scene(RETRAIN, landed, retrained, place.run(retrained, *RETRAIN))


@pytest.mark.slow
@pytest.mark.timeout(10800)
@pytest.mark.parametrize("kind", ["directory", "seaweedfs"])
def test_a_kill_at_every_write_loses_nothing(
    kind: str, place: Place, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = fresh_uri(kind, request)
    numbers = itertools.count()

    def new_store() -> str:
        return f"{uri}/{next(numbers)}"

    ingest = ingest_scene(place, new_store)
    retrain = retrain_scene(place, ingest.after, new_store)
    waits = waiting(place, new_store)
    admission = next(n for n, key in enumerate(waits.ended.writes) if key.startswith("runs/"))
    tasks = [
        *((ingest, kill) for kill in every(ingest.ended.writes, kind)),
        *((waits, kill) for kill in every(waits.ended.writes[:admission], kind)),
        *((retrain, kill) for kill in every(retrain.ended.writes, kind)),
    ]
    began = time.monotonic()
    failures: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {pool.submit(survives, place, task[0], new_store(), task[1]): task for task in tasks}
        try:
            for count, future in enumerate(as_completed(futures), start=1):
                scene, kill = futures[future]
                error = future.exception()
                told = f"{scene.command[0]} killed {kill.moment} write {kill.number}"
                if error is not None:
                    failures.append(f"{told}: {error}")
                else:
                    told += f" ({future.result()})"
                with capsys.disabled():
                    seconds = time.monotonic() - began
                    print(f"\n{kind} {count}/{len(tasks)} {seconds:.0f} s: {told}{' FAILED' if error else ''}", end="")
        finally:
            pool.shutdown(cancel_futures=True)  # after a Ctrl-C
    assert not failures, "\n".join(failures)
