"""`kill -9` at any moment of `ingest` or `retrain`, then the same command again: nothing is lost, nothing is twice.

Real commands in real processes, killed at chosen writes (killing.py), and compared with a run that
nobody disturbed. `make test` kills at ten writes; the slow tests at every one, on a directory and on S3.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows import server
from leptonflow import analytics
from leptonflow.planning import load_config
from leptonflow.store import Store, open_store
from schemas.tables import TABLES
from tasks.discover import discover
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
        for t in TABLES
    )
    return {row["t"]: (row["n"], row["d"]) for row in sql(store, " union all ".join(each))}


def sql(store: Store, query: str) -> list[dict[str, Any]]:
    return list(analytics.query(store, query).to_pylist())


def agree(uri: str, undisturbed: str) -> None:
    """The same dataset, the same objects under the same names, every row once, every version once."""
    found, expected = open_store(uri), open_store(undisturbed)
    assert names_of(found) == names_of(expected)
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


# --- fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's YAML; `first` with 60 digits of three classes and a file that is no image; two small batches."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("crash")
    (folder / "tiny.yaml").write_text(YAML)
    digits = load_digits()
    for label in range(CLASSES):
        scans = iter(digits.images[digits.target == label])
        for batch, count in (("first", 20), ("second", 4), ("third", 4)):
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


def scenes(place: Place, new_store: Callable[[], str]) -> tuple[Scene, Scene]:
    """`ingest` on an empty store, and `retrain` on what it leaves."""
    empty, ingested, retrained = new_store(), new_store(), new_store()
    ingest = place.run(ingested, *INGEST)
    assert ingest.document["accepted"] == 60 and ingest.document["quarantined"] == 1
    copy(ingested, retrained)
    retrain = place.run(retrained, *RETRAIN)
    assert retrain.document["verdict"] == "promoted"
    return Scene(INGEST, empty, ingested, ingest), Scene(RETRAIN, ingested, retrained, retrain)


@pytest.fixture(scope="module")
def undisturbed(place: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Scene]:
    """Both commands on a directory store."""
    return scenes(place, lambda: (tmp_path_factory.mktemp("stores") / "store").as_uri())


@pytest.fixture(scope="module")
def ten(
    request: pytest.FixtureRequest,
    place: Place,
    undisturbed: tuple[Scene, Scene],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[str]]]:
    """The kills that were asked for, side by side, while the tests wait for each in turn."""
    names = {item.name for item in request.session.items}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {}
        for name, (command, moment, pattern) in TEN.items():
            if any(f"[{name}]" in asked for asked in names):
                (scene,) = [scene for scene in undisturbed if scene.command == command]
                uri = (tmp_path_factory.mktemp("killed") / "store").as_uri()
                futures[name] = pool.submit(survives, place, scene, uri, Kill(moment, pattern=pattern))
        yield futures
        pool.shutdown(cancel_futures=True)


# --- make test -----------------------------------------------------------------------------------


@pytest.mark.parametrize("write", TEN)
def test_a_kill_at_ten_writes_loses_nothing(write: str, ten: dict[str, Future[str]]) -> None:
    ten[write].result()


def test_what_a_kill_left_out_of_a_batch_is_written_by_the_next_retrain(
    place: Place, undisturbed: tuple[Scene, Scene], tmp_path: Path
) -> None:
    """A `retrain` that was killed right after the snapshot record finds no batch waiting the next time."""
    ingested = open_store(undisturbed[0].after)
    left_out = ("batches/", "tables/")
    keys = [key for key in keys_of(ingested) if not key.startswith(left_out)]
    store = open_store((tmp_path / "store").as_uri())
    store.create_many(zip(keys, ingested.get_many(keys), strict=True))
    plan = discover.fn(store.uri, load_config(str(place.folder / "tiny.yaml")), False)
    assert plan.waiting == () and plan.snapshot is not None
    agree(store.uri, ingested.uri)


# --- a person's decision between the kill and the next run -------------------------------------------


def history(uri: str) -> list[tuple[str, str, str | None]]:
    """(kind, version, previous) of each promotion record, oldest first."""
    found = sql(open_store(uri), "select kind, version, previous from promotions order by number")
    return [(row["kind"], row["version"], row["previous"]) for row in found]


def decisions(uri: str, run_id: str) -> list[int]:
    """The records that the run's decisions were made against."""
    folder = f"runs/tiny/{run_id}/decisions"
    return sorted(int(key.removeprefix(f"{folder}/").removesuffix(".json")) for key, _ in open_store(uri).list(folder))


def passed(document: dict[str, Any], rule: str) -> bool | None:
    (found,) = [row["passed"] for row in document["gate"] if row["rule"] == rule]
    return found  # type: ignore[no-any-return]


def more(place: Place, uri: str, batch: str) -> None:
    """Bring another batch in, so that the next `retrain` makes another version."""
    assert place.run(uri, "ingest", "tiny.yaml", batch, "--batch", batch).document["accepted"] > 0


def test_a_rollback_after_a_kill_right_after_the_promotion_stands(
    place: Place, undisturbed: tuple[Scene, Scene], tmp_path: Path
) -> None:
    uri = copy(undisturbed[1].after, (tmp_path / "store").as_uri())
    first = undisturbed[1].ended.document["version"]
    more(place, uri, "second")
    place.killed(uri, RETRAIN, Kill(AFTER, pattern="^promotions/"))
    second = history(uri)[-1][1]
    rollback = place.run(uri, "rollback", "tiny.yaml", "--reason", "it looked odd").document
    assert rollback["champion"] == first
    stands = [("promotion", first, None), ("promotion", second, first), ("rollback", first, second)]
    assert history(uri) == stands

    again = place.run(uri, *RETRAIN).document
    assert (again["verdict"], again["version"], again["champion"]) == ("promoted", second, first)
    assert history(uri) == stands
    assert decisions(uri, again["run_id"]) == [1]
    nothing_new(place, uri, RETRAIN)
    assert sql(open_store(uri), "select version, verdict from runs order by finished_at") == [
        {"version": first, "verdict": "promoted"},
        {"version": second, "verdict": "promoted"},
    ]


def test_a_version_taken_down_after_a_kill_right_before_its_promotion_is_weighed_again_and_refused(
    place: Place, undisturbed: tuple[Scene, Scene], tmp_path: Path
) -> None:
    uri = copy(undisturbed[1].after, (tmp_path / "store").as_uri())
    first = undisturbed[1].ended.document["version"]
    more(place, uri, "second")
    place.killed(uri, RETRAIN, Kill(BEFORE, pattern="^promotions/"))
    assert len(history(uri)) == 1
    (second,) = {m["version"] for m in place.run(uri, "models", "tiny.yaml").document} - {first}
    place.run(uri, "promote", "tiny.yaml", "--version", second, "--reason", "it cannot wait")
    place.run(uri, "rollback", "tiny.yaml", "--reason", "it could have")
    taken_down = [("promotion", first, None), ("override", second, first), ("rollback", first, second)]

    again = place.run(uri, *RETRAIN, status=4).document
    assert (again["verdict"], again["version"], again["champion"]) == ("refused", second, first)
    assert [r["rule"] for r in again["gate"] if r["passed"] is False] == ["rolled-back"]
    assert passed(again, "stale-snapshot") is True
    assert history(uri) == taken_down
    assert decisions(uri, again["run_id"]) == [1, 3]
    nothing_new(place, uri, RETRAIN)


@pytest.mark.slow
def test_a_version_killed_right_before_its_promotion_is_weighed_again_against_whom_a_rollback_made_champion(
    place: Place, undisturbed: tuple[Scene, Scene], tmp_path: Path
) -> None:
    uri = copy(undisturbed[1].after, (tmp_path / "store").as_uri())
    first = undisturbed[1].ended.document["version"]
    more(place, uri, "second")
    second = place.run(uri, *RETRAIN).document["champion"]
    more(place, uri, "third")
    place.killed(uri, RETRAIN, Kill(BEFORE, pattern="^promotions/"))
    assert place.run(uri, "rollback", "tiny.yaml", "--reason", "it looked odd").document["champion"] == first

    again = place.run(uri, *RETRAIN).document
    third = again["version"]
    assert (again["verdict"], again["champion"]) == ("promoted", third) and third not in (first, second)
    assert history(uri)[1:] == [("promotion", second, first), ("rollback", first, second), ("promotion", third, first)]
    assert decisions(uri, again["run_id"]) == [2, 3]
    weighed = sql(open_store(uri), f"select champion_before from runs where run_id = '{again['run_id']}'")
    assert weighed == [{"champion_before": first}]
    assert passed(again, "rolled-back") is True and passed(again, "stale-snapshot") is True
    nothing_new(place, uri, RETRAIN)


# --- what a killed command leaves running ------------------------------------------------------------


def marked(mark: str) -> dict[int, str]:
    """The command line of each living process that inherited the mark in its environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ended = b"State:\tZ" in (folder / "status").read_bytes()
            if not ended and mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has just ended, or is another user's
    return found


def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, what
        time.sleep(0.05)
    return time.monotonic() - began


def noted(record: Path, pattern: str) -> bool:
    """Whether a command has come to a write."""
    return record.exists() and re.search(pattern, record.read_text(), re.MULTILINE) is not None


def test_kill_9_of_a_retrain_leaves_no_process_behind(source: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(YAML)
    (tmp_path / "first").symlink_to(source / "first")
    mark = uuid.uuid4().hex
    alone = Place(tmp_path, {"LEPTONFLOW_TEST_MARK": mark})  # no API is configured: the command starts its own server
    uri = (tmp_path / "store").as_uri()
    alone.killed(uri, INGEST, Kill(AFTER, pattern="/_READY$"))  # `retrain` finds a closed batch to validate
    for write, children in (
        ("^examples/", ("flows.server_child", "leptonflow.examiners", "leptonflow.contracts")),
        ("/final/manifest", ("flows.server_child", "leptonflow.infra")),
    ):
        process, record = alone.start(uri, RETRAIN, Kill(HOLD, pattern=write))
        until(partial(noted, record, write), 120, f"it never came to {write}")
        lines = list(marked(mark).values())
        for child in children:
            assert any(child in line for line in lines), f"{child} was not running: {lines}"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        seconds = until(lambda: not marked(mark), 20, "processes were left behind")
        print(f"killed at {write}: the last child ended after {seconds:.1f} s")


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
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["directory", "seaweedfs"])
def test_a_kill_at_every_write_loses_nothing(
    kind: str, place: Place, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = fresh_uri(kind, request)
    numbers = itertools.count()

    def new_store() -> str:
        return f"{uri}/{next(numbers)}"

    ingest, retrain = scenes(place, new_store)
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
