"""Admissions at once: a batch is in the log once, and a picture in the dataset once, whoever is interrupted where."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leptonflow.data.dataset import admission, dataset_state
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas import constants
from schemas.errors import Overtaken
from schemas.records import Outcome
from tests.batches import CONFIG, land, put
from tests.conftest import fresh_uri

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 20
FOLDERS = ("cat", "dog")

ADMITTER = """
    import sys
    from leptonflow.data.dataset import admission
    from leptonflow.runs import discovery
    from leptonflow.storage.address import open_store
    from tests.batches import CONFIG

    store = open_store(sys.argv[1])
    with admission.tools():
        print("ready", flush=True)
        for line in sys.stdin:
            outcome = admission.admit(store, CONFIG, line.strip())
            discovery.discover(store, CONFIG, force=False)
            print(outcome.model_dump_json(), flush=True)
"""


pytestmark = pytest.mark.usefixtures("admission_tools")


# A folder is in every run: admission asks of a store what tests/contract holds on all.
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("memory", "seaweedfs", "minio")]


@pytest.fixture(params=["directory", *SLOW])
def store(request: pytest.FixtureRequest) -> Store:
    return open_store(fresh_uri(request.param, request))


def batch(store: Store, source: Path, name: str, seed: int) -> str:
    put(source, *(f"{folder}/{n}.png" for folder in FOLDERS for n in range(3)), seed=seed)
    return land(store, source, name).batch


def meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch, verb: str, end: str, act: Callable[[], object]
) -> list[object]:
    """Do something once, before `store` creates a key that ends so or after it has read it; what it gave."""
    real: Callable[..., Any] = getattr(store, verb)
    given: list[object] = []
    busy: list[bool] = []

    def asked(key: str, *rest: object) -> object:
        answer = None if verb == "create" else real(key, *rest)
        if key.endswith(end) and not busy:
            busy.append(True)
            given.append(act())
        return real(key, *rest) if verb == "create" else answer

    monkeypatch.setattr(store, verb, asked)
    return given


def admitted(store: Store) -> list[str]:
    return [entry.body["batch"] for entry in dataset_state.snapshots(store, "pets", complete=True).entries]


MOMENTS = [
    ("size", ".json"),  # it has seen that the batch is new, and not yet the log to judge by
    ("get", "_READY"),
    ("create", ".parquet"),  # it has judged, and not yet written
    ("create", "log/00000002.json"),
]


@pytest.mark.parametrize(("verb", "end"), MOMENTS)
def test_another_admission_of_the_same_batch_comes_between(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, end: str
) -> None:
    admission.admit(store, CONFIG, batch(store, tmp_path / "a", "a", 0))
    name = batch(store, tmp_path / "b", "b", 100)
    given = meanwhile(store, monkeypatch, verb, end, lambda: admission.admit(open_store(store.uri), CONFIG, name))
    outcome = admission.admit(store, CONFIG, name)
    assert given == [outcome]
    assert (outcome.accepted, outcome.known) == (6, 0)
    assert admitted(store) == ["a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "end"), MOMENTS)
def test_another_batch_with_the_same_pictures_comes_between(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, end: str
) -> None:
    admission.admit(store, CONFIG, batch(store, tmp_path / "a", "a", 0))
    names = [batch(store, tmp_path / name, name, 100) for name in ("b", "c")]
    given = meanwhile(store, monkeypatch, verb, end, lambda: admission.admit(open_store(store.uri), CONFIG, names[1]))
    outcome = admission.admit(store, CONFIG, names[0])
    assert isinstance(given[0], Outcome)
    assert (given[0].accepted, outcome.accepted, outcome.known) == (6, 0, 6)
    assert admitted(store) == ["a", "c", "b"]
    head = dataset_state.snapshots(store, "pets").head
    assert head is not None and head.body["examples"] == 12


def test_first_batches_that_fix_other_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second is judged by the classes of the first, and a refusal is of the log that it was judged by."""
    store = open_store(f"memory://{tmp_path.name}-classes")
    put(tmp_path / "one", "cat/1.png", "cat/2.png", seed=7)  # alone it is refused: one class
    one = land(store, tmp_path / "one", "one").batch
    two = batch(store, tmp_path / "two", "two", 50)
    meanwhile(store, monkeypatch, "get", "_READY", lambda: admission.admit(open_store(store.uri), CONFIG, two))
    assert admission.admit(store, CONFIG, one).outcome == "accepted"
    assert admitted(store) == ["two", "one"]


def test_who_is_overtaken_for_ever_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"memory://{tmp_path.name}-overtaken")
    admission.admit(store, CONFIG, batch(store, tmp_path / "a", "a", 0))
    number = iter(range(1, 100))
    real = store.create

    def create(key: str, data: bytes) -> None:
        if "/log/" in key and json.loads(data)["body"]["batch"] == "mine":
            n = next(number)
            monkeypatch.setattr(store, "create", real)
            admission.admit(store, CONFIG, batch(store, tmp_path / f"x{n}", f"x{n}", 100 * n))
            monkeypatch.setattr(store, "create", create)
        real(key, data)

    name = batch(store, tmp_path / "mine", "mine", 99_000)
    monkeypatch.setattr(store, "create", create)
    with pytest.raises(Overtaken):
        admission.admit(store, CONFIG, name)
    assert next(number) == constants.ATTEMPTS + 1


@pytest.mark.slow
def test_four_processes_admit_at_once(store_uri: str, tmp_path: Path) -> None:
    """All four the same batch, then two and two batches of the same pictures, in turn."""
    command = [sys.executable, "-c", textwrap.dedent(ADMITTER), store_uri]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    try:
        store = open_store(store_uri)
        assert [line_of(p) for p in processes] == ["ready"] * 4
        expected: list[str] = []
        for number in range(ROUNDS):
            names = [batch(store, tmp_path / f"r{number}", f"r{number}", 100 * number)]
            if number % 2:
                names.append(land(store, tmp_path / f"r{number}", f"r{number}-again").batch)
            expected += names
            outcomes = admit_at_once(processes, [names[n % len(names)] for n in range(4)])
            assert sorted(admitted(store)) == sorted(expected)
            assert len(set(outcomes)) == len(names)
            assert sum(Outcome.model_validate_json(each).accepted for each in set(outcomes)) == 6
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    head = dataset_state.snapshots(open_store(store_uri), "pets").head
    assert head is not None and head.body["examples"] == 6 * ROUNDS


def admit_at_once(processes: list[subprocess.Popen[str]], names: list[str]) -> list[str]:
    for process, name in zip(processes, names, strict=True):
        assert process.stdin is not None
        process.stdin.write(name + "\n")
        process.stdin.flush()
    return [line_of(process) for process in processes]


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
