"""`leptonflow.open`: a store as a notebook reads it. The trained store is one of an earlier release."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import leptonflow
from leptonflow.core.hashing import sha256
from leptonflow.data.dataset import admission
from leptonflow.data.ingest import intake
from leptonflow.notebook.opened_store import OpenedStore
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.errors import Damaged, LeptonflowError, NotFound, UsageError
from tests.e2e.helpers import picture

ARCHIVE = Path(__file__).parent.parent / "stores" / "0.1.0-format-1.tar.gz"


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained store, and what it was trained on."""
    folder = tmp_path_factory.mktemp("pets")
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture
def store(pets: Path) -> OpenedStore:
    return leptonflow.open(pets / "store")


# --- opening -------------------------------------------------------------------------------------


def test_importing_and_opening_load_nothing_heavy(pets: Path) -> None:
    code = (
        "import sys, leptonflow\n"
        "heavy = {'numpy', 'pyarrow', 'pydantic', 'PIL', 'pandas', 'duckdb', 'keras', 'tensorflow', 'prefect'}\n"
        "assert not heavy & set(sys.modules)\n"
        "leptonflow.open(sys.argv[1]).pipelines()\n"
        "assert not heavy - {'numpy', 'pydantic'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(pets / "store")], check=True, timeout=60)


def test_the_default_store_is_the_command_lines(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEPTONFLOW_STORE", raising=False)
    with pytest.raises(LeptonflowError, match=r"there is no store at file:.*/\.leptonflow"):
        leptonflow.open()
    assert not list(tmp_path.iterdir())
    (tmp_path / ".leptonflow").symlink_to(pets / "store")
    assert leptonflow.open().pipelines() == ["pets"]
    (tmp_path / ".leptonflow").unlink()
    monkeypatch.setenv("LEPTONFLOW_STORE", str(pets / "store"))
    assert leptonflow.open().uri == (pets / "store").as_uri()


# --- tables --------------------------------------------------------------------------------------


def test_a_query_is_a_data_frame_and_an_arrow_table(store: OpenedStore) -> None:
    found = store.query("SELECT fold, count(*) AS n FROM predictions GROUP BY fold ORDER BY fold")
    assert isinstance(found, pd.DataFrame) and list(found.columns) == ["fold", "n"]
    assert found.arrow().schema.field("fold").type == pa.int64()
    assert found["n"].tolist() == found.arrow()["n"].to_pylist()
    assert type(found[found["n"] > 1]) is pd.DataFrame
    with pytest.raises(UsageError, match="a query only reads"):
        store.query("DROP TABLE runs")


def test_polars_is_used_where_it_is_installed(store: OpenedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(UsageError, match=r"polars is not installed.*pip install polars"):
        store.query("FROM runs").polars()
    monkeypatch.undo()
    polars = pytest.importorskip("polars")
    assert isinstance(store.query("FROM runs").polars(), polars.DataFrame)


def test_runs_are_rows_of_the_table_newest_last(store: OpenedStore) -> None:
    runs = store.runs("pets")
    assert len(runs) == 4 and runs["started_at"].is_monotonic_increasing
    assert set(runs["verdict"]) <= {"promoted", "refused"}
    with pytest.raises(UsageError, match=r"no such pipeline\. Expected: one of pets\. Received: \"x' OR 'a"):
        store.runs("x' OR 'a'='a")


# --- the champion --------------------------------------------------------------------------------


def test_the_champion_predicts_files_and_arrays_alike(store: OpenedStore, pets: Path, tmp_path: Path) -> None:
    champion = store.champion("pets")
    assert champion.version in set(store.query("SELECT version FROM promotions")["version"])
    assert 0 < (champion.metrics["accuracy"] or 0) < 1
    files = sorted((pets / "first" / "cat").glob("*_L.png"))[:3]
    said = champion.predict(files)
    assert list(said.columns) == ["file", "label", "probability", "version", "error"]
    assert said["file"].tolist() == [str(file) for file in files]
    images = [np.asarray(Image.open(file)) for file in files]
    for arrays in (np.stack(images), images):
        again = champion.predict(arrays)
        assert again["file"].tolist() == ["array[0]", "array[1]", "array[2]"]
        assert again["label"].tolist() == said["label"].tolist()
        assert np.allclose(again["probability"], said["probability"], atol=1e-6)
    (one,) = champion.predict(str(files[0])).to_dict("records")
    assert (one["label"], one["version"]) == (said["label"][0], champion.version)
    assert len(champion.predict(pets / "first" / "cat")) > len(files)
    (missing,) = champion.predict(tmp_path / "gone.png").to_dict("records")
    assert missing["label"] is None and "No such file" in missing["error"]
    assert champion.predict([]).empty


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((8, 8)), r"not 8 x 8.*example\[None\]"),
        (np.zeros((2, 8, 8, 2)), "C 1, 3 or 4"),
        (np.array([["a"]]), "no kind of number"),
        ([np.zeros((8, 8)), np.zeros((9, 8))], r"examples of one shape\. Received: \(8, 8\), \(9, 8\)"),
    ],
)
def test_another_array_is_refused_in_a_line(store: OpenedStore, values: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        store.champion("pets").predict(values)


def test_a_row_that_fits_no_scale_has_its_reason(store: OpenedStore) -> None:
    rows = np.random.default_rng(0).random((3, 8, 8))
    rows[1, 0, 0] = np.nan
    said = store.champion("pets").predict(rows)
    assert said["error"].notna().tolist() == [False, True, False] and said["error"][1].startswith("not-finite: ")


# --- examples ------------------------------------------------------------------------------------

CONFIG = {
    "name": "kinds", "workload": "image_classification", "input": [8, 8, 1], "classes": ["0", "1"],
    "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}],
}  # fmt: skip


def sources(folder: Path) -> list[Path]:
    """A source of each kind, other pictures in each."""

    def values(first: int) -> np.ndarray:
        return np.stack([np.asarray(picture(n)) for n in range(first, first + 8)])

    labels = np.arange(8) % 2
    for number in range(8):
        (folder / "folders" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / "folders" / str(number % 2) / f"{number}.png")
    for name in ("arrays", "table"):
        (folder / name).mkdir()
    np.save(folder / "arrays" / "x.npy", values(10))
    np.save(folder / "arrays" / "y.npy", labels)
    np.savez(folder / "both.npz", x=values(20), y=labels)
    lines = ["path,label"]
    for number in range(30, 38):
        picture(number).save(folder / "table" / f"{number}.png")
        lines.append(f"{number}.png,{number % 2}")
    (folder / "table" / "t.csv").write_text("\n".join(lines))
    files = [(folder / "table" / f"{number}.png").read_bytes() for number in range(30, 38)]
    for number in range(40, 48):
        picture(number).save(folder / "one.png")
        files.append((folder / "one.png").read_bytes())
    rows = {"image": [{"bytes": data, "path": None} for data in files], "label": [str(n % 2) for n in range(16)]}
    pq.write_table(pa.table(rows), folder / "pictures.parquet")
    return [folder / name for name in ("folders", "arrays", "both.npz", "table/t.csv", "pictures.parquet")]


def test_an_example_has_the_bytes_that_were_accepted(tmp_path: Path) -> None:
    """Of a file, a row of an array, of an archive, of a table of paths, of a table with the pictures in it."""
    store, config = open_store(str(tmp_path / "store")), Pipeline.model_validate(CONFIG)
    (tmp_path / "sources").mkdir()
    counts = []
    with admission.tools():
        for source in sources(tmp_path / "sources"):
            document, _ = intake.ingest(store, config, source, None)
            counts.append((document["accepted"], document["known"]))
    assert counts == [(8, 0)] * 4 + [(8, 8)], "the table's first eight pictures came before: it is landed in part"
    opened = leptonflow.open(tmp_path / "store")
    parts = [pq.read_table(path, columns=["id", "sha256", "source", "label"])
             for path in (tmp_path / "store" / "examples" / "kinds").glob("*.parquet")]  # fmt: skip
    rows = pa.concat_tables(parts).to_pylist()
    assert len(rows) == 40
    for row in rows:
        example = opened.example(row["id"][:16])
        assert (sha256(example.bytes), example.id) == (row["sha256"], row["id"])
        assert (example.pipeline, example.source, example.label) == ("kinds", row["source"], row["label"])


def test_an_example_that_is_not_there_or_was_changed_is_said(store: OpenedStore, pets: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="6 of its hex digits"):
        store.example("abc")
    with pytest.raises(NotFound, match="no example has that id"):
        store.example("0" * 64)
    (copied := tmp_path / "copy").mkdir()
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(copied, filter="data")
    opened = leptonflow.open(copied / "store")
    example = opened.example(opened.query("SELECT example_id FROM predictions LIMIT 1")["example_id"][0])
    landed = copied / "store" / "landing" / "pets" / example.batch / example.source
    assert landed.read_bytes() == example.bytes
    landed.write_bytes(b"another file")
    with pytest.raises(Damaged, match="is not what was accepted"):
        opened.example(example.id)
