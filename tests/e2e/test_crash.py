"""`kill -9` at any moment of `ingest` or `retrain`, then the same command again: nothing is lost, nothing is twice.

Real commands in real processes, killed at chosen writes (killing.py), and compared with a run that
nobody disturbed. `make test` kills at ten writes; the slow tests at every one, on a directory and on S3.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from flows import server
from leptonflow import analytics
from leptonflow.store import Store, open_store
from schemas.tables import TABLES
from tests.conftest import fresh_uri
from tests.e2e.killing import AFTER, BEFORE, HOLD, WITHIN, Ended, Kill, finish, launch

CLASSES = 3
YAML = """
name: tiny
workload: image_classification
input: [28, 28, 1]
holdout: {fraction: 0.2}
model: {filters: [4, 4, 4], dense: 8, dropout: 0.0}
training: {epochs: 1, folds: 2}
gate:
  - {rule: at_least, metric: accuracy, value: 0.0}
  - {rule: against_champion, metric: accuracy, margin: 1.0}
"""
AT_ONCE = 2  # commands side by side: most of their time goes into imports, on one core each

INGEST = ("ingest", "tiny.yaml", "first", "--batch", "first")
RETRAIN = ("retrain", "tiny.yaml")

# The ten writes of `make test`: the command, the key of the write, and when it is killed there.
TEN = {
    "a landed file": (INGEST, WITHIN, r"^landing/.*/1/"),
    "_READY": (INGEST, BEFORE, r"/_READY$"),
    "a part": (INGEST, AFTER, r"^examples/"),
    "the snapshot record": (INGEST, AFTER, r"^snapshots/"),
    "a fold's manifest": (RETRAIN, BEFORE, r"/fold-1/manifest\.json$"),
    "a package's file": (RETRAIN, AFTER, r"^models/.*/model\.keras$"),
    "a package's manifest": (RETRAIN, BEFORE, r"^models/.*/manifest\.json$"),
    "the promotion record": (RETRAIN, AFTER, r"^promotions/"),
    "a table's file": (RETRAIN, WITHIN, r"^tables/runs/"),
    "the run's manifest": (RETRAIN, BEFORE, r"^runs/.*/manifest\.json$"),
}


@dataclass(frozen=True)
class Place:
    """Where commands run: a folder with the pipeline's YAML and its data, and what every command is given."""

    folder: Path
    environment: Mapping[str, str]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self, uri: str, command: tuple[str, ...], kill: Kill | None = None) -> tuple[Any, Path]:
        """Start a command on the store at `uri`; the process and the file in which its writes are noted."""
        record = self.folder / f"writes-{next(self._numbers)}"
        arguments = [*command, "--store", uri, "--json"]
        return launch(arguments, self.folder, record, kill, self.environment), record

    def run(self, uri: str, *command: str) -> Ended:
        """Run a command to its end, which must be a good one."""
        ended = finish(*self.start(uri, command))
        assert ended.status == 0, ended.errors
        return ended

    def killed(self, uri: str, command: tuple[str, ...], kill: Kill) -> Ended:
        """Run a command that is killed. Its last write is the one that it was killed at."""
        ended = finish(*self.start(uri, command, kill))
        assert ended.status == -signal.SIGKILL, f"{kill} did not happen: {ended.errors or ended.document}"
        return ended


@dataclass(frozen=True)
class Undisturbed:
    """Both commands as nobody disturbs them: the stores they leave, and every write on the way."""

    empty: str
    ingested: str
    retrained: str
    ingest: Ended
    retrain: Ended

    def stores(self, command: tuple[str, ...]) -> tuple[str, str]:
        """The stores before and after the command."""
        return (self.empty, self.ingested) if command == INGEST else (self.ingested, self.retrained)

    def run(self, command: tuple[str, ...]) -> Ended:
        return self.ingest if command == INGEST else self.retrain


# --- what is compared ----------------------------------------------------------------------------


def copy(source: str, target: str) -> str:
    """All objects of one store onto another; what commands write later is in the copy alone."""
    before = open_store(source)
    keys = list(keys_of(before))
    open_store(target).create_many(zip(keys, before.get_many(keys), strict=True))
    return target


def keys_of(store: Store) -> dict[str, int]:
    """Every object and its size. The folder of kernel locks holds none."""
    return {key: size for key, size in store.list("") if not key.startswith(".locks/")}


def rows(store: Store) -> dict[str, tuple[int, int]]:
    """Of each table: its rows, and its distinct rows."""
    each = (f"select '{t}' t, (select count(*) from {t}) n, (select count(*) from (select distinct * from {t})) d" for t in TABLES)
    return {row["t"]: (row["n"], row["d"]) for row in sql(store, " union all ".join(each))}


def sql(store: Store, query: str) -> list[dict[str, Any]]:
    return list(analytics.query(store, query).to_pylist())


def agree(uri: str, undisturbed: str) -> None:
    """The same dataset, the same objects under the same names, every row once, every version once."""
    found, expected = open_store(uri), open_store(undisturbed)
    assert sorted(keys_of(found)) == sorted(keys_of(expected))
    counts = rows(found)
    assert counts == rows(expected)
    assert all(n == distinct for n, distinct in counts.values()), counts
    for query in (
        "select number, snapshot, batch, examples from snapshots order by number",
        "select number, version, previous, kind, run_id from promotions order by number",
        "select version, run_id, snapshot from models order by version",
        "select run_id, version, verdict, snapshot from runs order by run_id",
        "select split, fold, example_id, label from predictions order by all",
        "select batch, source, rule from quarantine order by all",
    ):
        assert sql(found, query) == sql(expected, query), query


def nothing_new(place: Place, uri: str, command: tuple[str, ...]) -> None:
    """The command once more says so and writes nothing."""
    before = keys_of(open_store(uri))
    ended = place.run(uri, *command)
    said = ended.document["outcome"] if command == INGEST else ended.document["verdict"]
    assert said == ("reused" if command == INGEST else "unchanged")
    assert ended.writes == ()
    assert keys_of(open_store(uri)) == before


def survives(place: Place, undisturbed: Undisturbed, uri: str, command: tuple[str, ...], kill: Kill) -> str:
    """Kill the command, run it again, compare; the key that it was killed at."""
    start, end = undisturbed.stores(command)
    copy(start, uri)
    killed = place.killed(uri, command, kill)
    again = place.run(uri, *command)
    whole = undisturbed.run(command).document
    same = ("batch", "arrived", "accepted", "quarantined", "snapshot") if command == INGEST else ("run_id", "version", "champion", "snapshot", "examples")
    assert {name: again.document[name] for name in same} == {name: whole[name] for name in same}
    agree(uri, end)
    nothing_new(place, uri, command)
    return killed.writes[-1]


# --- fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's YAML; `first` with 60 digits of three classes and a file that is no image; four small batches."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("crash")
    (folder / "tiny.yaml").write_text(YAML)
    digits = load_digits()
    for label in range(CLASSES):
        scans = iter(digits.images[digits.target == label])
        for batch, count in (("first", 20), ("second", 4), ("third", 4), ("fourth", 4)):
            target = folder / batch / str(label)
            target.mkdir(parents=True)
            for number, scan in enumerate(itertools.islice(scans, count)):
                grey = np.rint(scan * (255 / 16)).astype(np.uint8)  # (8, 8), 0..255
                Image.fromarray(grey).resize((28, 28)).save(target / f"{number:02d}.png")
    (folder / "first" / "0" / "text.png").write_text("this is no image")
    return folder


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Prefect server that stays up, whoever is killed."""
    handle = server.start(tmp_path_factory.mktemp("prefect"))
    try:
        handle.wait()
        yield handle.url
    finally:
        handle.close()


@pytest.fixture(scope="module")
def place(source: Path, api: str) -> Place:
    """The folder, every command reporting to the one server."""
    return Place(source, {"PREFECT_API_URL": api})


def undisturbed_at(place: Place, new_store: Callable[[], str], command: tuple[str, ...] = INGEST) -> Undisturbed:
    empty, ingested, retrained = new_store(), new_store(), new_store()
    ingest = place.run(ingested, *command)
    copy(ingested, retrained)
    return Undisturbed(empty, ingested, retrained, ingest, place.run(retrained, *RETRAIN))


@pytest.fixture(scope="module")
def undisturbed(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Both commands on a directory store."""
    found = undisturbed_at(place, lambda: (tmp_path_factory.mktemp("stores") / "store").as_uri())
    assert found.ingest.document["accepted"] == 60 and found.ingest.document["quarantined"] == 1
    assert found.retrain.document["verdict"] == "promoted"
    return found


@pytest.fixture(scope="module")
def ten(
    request: pytest.FixtureRequest, place: Place, undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[str]]]:
    """The kills that were asked for, side by side, while the tests wait for each in turn."""
    asked = {item.callspec.params["write"] for item in request.session.items if getattr(item, "originalname", "") == TEN_TEST}  # type: ignore[attr-defined]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {}
        for name, (command, moment, pattern) in TEN.items():
            if name in asked:
                uri = (tmp_path_factory.mktemp("killed") / "store").as_uri()
                futures[name] = pool.submit(survives, place, undisturbed, uri, command, Kill(moment, pattern=pattern))
        yield futures
        pool.shutdown(cancel_futures=True)


# --- make test -----------------------------------------------------------------------------------

TEN_TEST = "test_a_kill_at_ten_writes_loses_nothing"


@pytest.mark.parametrize("write", TEN)
def test_a_kill_at_ten_writes_loses_nothing(write: str, ten: dict[str, Future[str]]) -> None:
    ten[write].result()
