"""Commands that are killed and commands that are not, and what is compared of the stores that both leave.

What does not belong here: where a test kills, and what it decides in between.
"""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.tables import queries
from schemas.tables import COLUMNS
from tests.e2e.killing import Ended, Kill, finish, launch

CLASSES = 3
YAML = """
name: tiny
workload: image_classification
input: [28, 28, 1]
holdout: {fraction: 0.2}
model: {filters: [4, 4, 4], dense: 8, dropout: 0.0}
training: {epochs: 1, folds: 2}
serving: {onnx: false}
gate:
  - {rule: at_least, metric: accuracy, value: 0.0}
  - {rule: against_champion, metric: accuracy, margin: 1.0}
"""

INGEST = ("ingest", "tiny.yaml", "first", "--batch", "first")
RETRAIN = ("retrain", "tiny.yaml")


@dataclass(frozen=True)
class Place:
    """Where commands run: a folder with the pipeline's YAML and its data, and what every command is given."""

    folder: Path
    environment: Mapping[str, str]
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def start(self, uri: str, command: tuple[str, ...], kill: Kill | None = None) -> tuple[Any, Path]:
        """Start a command on the store at `uri`; the process and the file in which its writes are noted."""
        record = self.folder / f"writes-{next(self._numbers)}"
        arguments = [*command, "--store", uri, "--json"]
        return launch(arguments, self.folder, record, kill, self.environment), record

    def run(self, uri: str, *command: str, status: int = 0) -> Ended:
        """Run a command to its end, which must be of this exit status."""
        ended = finish(*self.start(uri, command))
        assert ended.status == status, ended.errors or ended.document
        return ended

    def killed(self, uri: str, command: tuple[str, ...], kill: Kill) -> Ended:
        """Run a command that is killed. Its last write is the one that it was killed at."""
        ended = finish(*self.start(uri, command, kill))
        assert ended.status == -signal.SIGKILL, f"{kill} did not happen: {ended.errors or ended.document}"
        return ended


@dataclass(frozen=True)
class Scene:
    """A command as nobody disturbs it: the stores before and after it, and all that it wrote on the way."""

    command: tuple[str, ...]
    before: str
    after: str
    ended: Ended


def ingest_scene(place: Place, new_store: Callable[[], str]) -> Scene:
    """`ingest` on an empty store."""
    empty, ingested = new_store(), new_store()
    ended = place.run(ingested, *INGEST)
    assert ended.document["accepted"] == 60 and ended.document["quarantined"] == 1
    return Scene(INGEST, empty, ingested, ended)


def retrain_scene(place: Place, ingested: str, new_store: Callable[[], str]) -> Scene:
    """`retrain` on what `ingest` leaves."""
    retrained = copy(ingested, new_store())
    ended = place.run(retrained, *RETRAIN)
    assert ended.document["verdict"] == "promoted"
    return Scene(RETRAIN, ingested, retrained, ended)


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


def names_of(store: Store) -> list[str]:
    """Every key; an infra-validation's goes by the manifest, which holds the time of its making."""
    return sorted(re.sub(r"/infra/\w+\.json$", "/infra/*.json", key) for key in keys_of(store))


def rows(store: Store) -> dict[str, tuple[int, int]]:
    """Of each table: its rows, and its distinct rows."""
    each = (
        f"select '{t}' t, (select count(*) from {t}) n, (select count(*) from (select distinct * from {t})) d"
        for t in COLUMNS
    )
    return {row["t"]: (row["n"], row["d"]) for row in sql(store, " union all ".join(each))}


def sql(store: Store, query: str) -> list[dict[str, Any]]:
    return list(queries.query(store, query).to_pylist())


def agree(uri: str, undisturbed: str) -> None:
    """The same dataset, the same objects under the same names, every row once, every version once."""
    found, expected = open_store(uri), open_store(undisturbed)
    assert names_of(found) == names_of(expected)
    counts, theirs = rows(found), rows(expected)
    # A resumed run has its own stages: it does not validate what was committed before the kill.
    assert {**counts, "stages": None} == {**theirs, "stages": None}
    assert bool(counts["stages"][0]) == bool(theirs["stages"][0])
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


def survives(place: Place, scene: Scene, uri: str, kill: Kill) -> str:
    """Kill the command on a copy at `uri`, run it again, compare; the key that it was killed at."""
    copy(scene.before, uri)
    killed = place.killed(uri, scene.command, kill)
    again = place.run(uri, *scene.command).document
    same = ("batch", "arrived", "accepted", "quarantined", "run_id", "version", "champion", "snapshot", "examples")
    for name in set(same) & set(scene.ended.document):
        assert again[name] == scene.ended.document[name], name
    agree(uri, scene.after)
    nothing_new(place, uri, scene.command)
    return killed.writes[-1]
