"""`verify`: each kind of object that a record names is read, and named where it is damaged or missing."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from leptonflow.runs import integrity, stored_pipelines
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from tests.e2e.helpers import call

ARCHIVE = Path(__file__).parent.parent / "stores" / "0.1.0-format-1.tar.gz"
# One of each kind, by the start and the end of its key. Of what an earlier release left as JSON without a digest
# anywhere (a fit's manifest, an evaluation), only that it is there and can be read.
KINDS = [
    ("store.json", ""), ("examples/", ""), ("quarantine/pets/bad", ""), ("quarantine/pets/first", ""),
    ("batches/pets/first", ""), ("landing/pets/first/cat", ""), ("landing/pets/second", ".npy"),
    ("landing/pets/third", "_READY"), ("snapshots/pets/log/00000001", ""), ("promotions/pets/log/00000002", ""),
    ("models/", "model.keras"), ("models/", "/manifest.json"), ("models/", "reference.parquet"),
    ("fits/", "oof.parquet"), ("fits/", "final/model.keras"), ("runs/", "holdout-predictions.parquet"),
    ("runs/", "verdict.json"), ("runs/", "report.html"), ("runs/", "champion-predictions-3.parquet"),
    ("tables/runs/", ""), ("tables/predictions/", "-oof.parquet"), ("tables/batches/", ""), ("tables/validations/", ""),
]  # fmt: skip
MISSING = [
    *KINDS, ("fits/", "fold-1/manifest.json"), ("runs/", "/manifest.json"), ("runs/", "decisions/0.json"),
    ("batches/pets/bad", ""), ("promotions/pets/log/00000004", ""), ("snapshots/pets/log/00000003", ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with batches accepted, quarantined and refused, a champion before the last, refused candidates."""
    place = tmp_path_factory.mktemp("verify")
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(place, filter="data")
    return place


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("leptonflow.storage.objects", "leptonflow.runs.integrity"):
            patch.setattr(f"{name}.PAUSES", (0.0, 0.0))
        yield


@pytest.fixture(scope="module")
def memory(folder: Path, quick: None) -> Store:
    there = open_store(str(folder / "store"))
    store = open_store("memory://verify-kinds")
    store.create_many((key, there.get(key)) for key in there.keys(""))
    return store


def damaged(store: Store) -> dict[str, str]:
    commit_log._verified.clear()  # as a new process
    document = integrity.verify(store, stored_pipelines.names(store), lambda *_: None)
    return {each["key"]: each["received"] for each in document["damaged"]}


def one(store: Store, kind: tuple[str, str]) -> str:
    return next(key for key in store.keys("") if key.startswith(kind[0]) and key.endswith(kind[1]) and store.size(key))


def test_a_whole_store_is_whole(memory: Store) -> None:
    assert damaged(memory) == {}


@pytest.mark.parametrize("kind", KINDS, ids="".join)
def test_one_flipped_bit_is_named(memory: Store, kind: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    key, real = one(memory, kind), memory.get

    def get(asked: str) -> bytes:
        data = real(asked)
        middle = len(data) // 2
        return data if asked != key else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    monkeypatch.setattr(memory, "get", get)
    assert key in damaged(memory)


@pytest.mark.parametrize("kind", MISSING, ids="".join)
def test_what_is_missing_is_named(memory: Store, kind: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    key = one(memory, kind)
    objects = vars(memory)["_objects"]
    monkeypatch.delitem(objects, key)
    assert damaged(memory)[key] == "no such object"


def test_a_lost_end_of_the_dataset_is_seen_by_what_was_trained_on_it(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = "snapshots/pets/log/00000003.json"
    objects = vars(memory)["_objects"]
    for key in [key for key in objects if key == record or key.startswith("batches/pets/third") or "/third-" in key]:
        monkeypatch.delitem(objects, key)
    assert damaged(memory)[record] == "no such object"


def test_the_command(folder: Path, tmp_path: Path) -> None:
    yaml, store = folder / "pets.yaml", folder / "store"
    whole = call("verify", yaml, "--store", store, "--json")
    assert whole.status == 0
    assert whole.document["damaged"] == [] and whole.document["objects"] > 200
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert 0.9 * size < whole.document["bytes"] <= size
    key = one(open_store(str(store)), ("models/", "model.keras"))
    kept = (store / key).read_bytes()
    (store / key).chmod(0o644)
    try:
        (store / key).write_bytes(kept[:-1])
        for asked in ([yaml], ["--all"]):
            found = call("verify", *asked, "--store", store, "--json")
            assert found.status == 1
            (row,) = found.document["damaged"]
            assert row["key"] == key and row["expected"].startswith("sha256 ") and row["received"].startswith("sha256 ")
        lines = call("verify", "--all", "--store", store).out.splitlines()
        assert lines[0].startswith(f"{key}: expected sha256 ") and lines[-1].endswith(": 1 damaged or missing")
    finally:
        (store / key).write_bytes(kept)
    assert call("verify", "--store", store).status == call("verify", yaml, "--all", "--store", store).status == 2
    assert call("verify", "--all", "--store", tmp_path / "nothing").status == 1


def test_status_of_a_damaged_champion_is_exit_1_with_its_document(folder: Path) -> None:
    yaml, store = folder / "pets.yaml", folder / "store"
    champion = call("status", yaml, "--store", store, "--json").document["champion"]
    file = store / f"models/pets/{champion}/model.keras"
    kept = file.read_bytes()
    file.chmod(0o644)
    try:
        file.write_bytes(kept[:-1])
        for flags in ([], ["--json"]):
            found = call("status", yaml, "--store", store, *flags)
            assert found.status == 1
        assert found.document["champion"] == champion
        assert f"models/pets/{champion}/model.keras" in found.document["damage"]
    finally:
        file.write_bytes(kept)
