"""Many examples scored to one Parquet file: as `predict` does, from every kind of source, and in pieces that stay."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flows import artifacts, wanted_deployments
from leptonflow.batch_scoring import scored_tables, scoring_job, stored_scores
from leptonflow.data.ingest.label_columns import Columns
from leptonflow.evaluation import champion_predictions
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.registry import onnx_export
from leptonflow.runs import integrity
from leptonflow.storage.address import open_store
from leptonflow.storage.directory_store import DirectoryStore
from leptonflow.storage.store import Store
from leptonflow.workloads.image_classification import cnn
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError, NotFound, UsageError
from schemas.image_classification import ImageModel
from tests import fit_examples, small_packages
from tests.e2e.helpers import call, command, picture
from tests.verdicts import promoted_by_hand

SHAPE = (12, 12, 1)
CONFIG = fit_examples.pipeline(name=small_packages.PIPELINE, input=list(SHAPE))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store whose champion is a small model, with its export for ONNX Runtime."""
    keras().utils.set_random_seed(1)
    found = open_store((tmp_path_factory.mktemp("scoring") / "store").as_uri())
    model = cnn.build(ImageModel(filters=(4,), dense=4), SHAPE, 2)
    exported = onnx_export.export(model, np.zeros((1, *SHAPE), np.uint8))
    sha256 = small_packages.put_model(found, "v1", model, SHAPE, [("model.onnx", exported)])
    promoted_by_hand(found, small_packages.PIPELINE, "v1", sha256)
    return found


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring_job, "MOST", scoring_job.LEAST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 pictures, one of them broken, in two folders; and what is none."""
    for number in range(40):
        place = tmp_path / "pictures" / ("a" if number % 3 else "a-b")
        place.mkdir(parents=True, exist_ok=True)
        picture(number, (12, 12)).save(place / f"{number:02d}.png")
    (tmp_path / "pictures" / "a" / "13.png").write_bytes(b"no picture")
    (tmp_path / "pictures" / "README.md").write_text("about")
    (tmp_path / "pictures" / ".hidden").mkdir()
    (tmp_path / "pictures" / ".hidden" / "x.png").write_bytes(b"x")
    return tmp_path / "pictures"


def scored(store: Store, output: Path, *given: Any, **how: Any) -> list[dict[str, Any]]:
    scoring_job.to_file(store, CONFIG, [str(each) for each in given], output, **how)
    assert not output.with_name(f"{output.name}.parts").exists()
    return list(pq.read_table(output).to_pylist())


def test_a_folder_is_scored_as_predict_does(store: Store, folder: Path, tmp_path: Path) -> None:
    rows = scored(store, tmp_path / "out.parquet", folder)
    singly = champion_predictions.predict(store, CONFIG, [str(folder)])
    assert [row["source"] for row in rows] == [each["file"] for each in singly]
    assert [row["label"] for row in rows] == [each["label"] for each in singly]
    assert [row["error"] for row in rows] == [each["error"] for each in singly]
    assert sum(row["error"] is not None for row in rows) == 1
    for row, each in zip(rows, singly, strict=True):
        if row["error"] is None:
            assert row["probability"] == pytest.approx(each["probability"], abs=1e-5)
            assert row["probability[0]"] + row["probability[1]"] == pytest.approx(1, abs=1e-5)
            assert row["probability"] == max(row["probability[0]"], row["probability[1]"]) and len(row["id"]) == 64
        assert row["version"] == "v1"
    broken = next(row for row in rows if row["error"])
    assert (broken["label"], broken["probability[0]"], broken["id"]) == (None, None, None)
    assert list(rows[0]) == [
        "source", "id", "label", "probability", "probability[0]", "probability[1]", "version", "error",
    ]  # fmt: skip


class Dying(DirectoryStore):
    """A store whose process is killed at its third file."""

    left = 2

    def create(self, key: str, data: bytes) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        super().create(key, data)


def test_what_was_finished_before_an_interruption_is_kept(store: Store, folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    scored(store, whole, folder)
    output = tmp_path / "out.parquet"
    parts = Dying((tmp_path / "out.parquet.parts").as_uri())
    with pytest.raises(KeyboardInterrupt):
        scoring_job.score(store, CONFIG, [str(folder)], parts, "")
    document = scoring_job.to_file(store, CONFIG, [str(folder)], output)
    assert (document["rows"], document["failed"], document["kept"]) == (40, 1, 32)
    assert output.read_bytes() == whole.read_bytes()

    parts = Dying((tmp_path / "out.parquet.parts").as_uri())
    with pytest.raises(KeyboardInterrupt):
        scoring_job.score(store, CONFIG, [str(folder)], parts, "")
    first = folder / "a-b" / "00.png"
    picture(99, (12, 12)).save(first)  # what changed since is scored anew
    os.utime(first, ns=(1, 1))
    assert scoring_job.to_file(store, CONFIG, [str(folder)], output)["kept"] == 16
    assert pq.read_table(output).to_pylist() == scored(store, whole, folder)


def test_names_may_be_anything(store: Store, tmp_path: Path) -> None:
    place = tmp_path / "a b%41$x"
    place.mkdir()
    for name in (b"\xff.png", b"new\nline.png", "\u00e9.png".encode()):
        picture(1, (12, 12)).save(os.fsdecode(os.fsencode(place) + b"/" + name), "png")
    (place / "link.png").symlink_to("/etc/passwd")
    os.mkfifo(place / "pipe.png")
    rows = scored(store, place / "out%41.parquet", place, processes=2)
    told = {row["source"].rpartition("/")[2]: (row["error"] or "").partition(":")[0] for row in rows}
    assert told == {
        "\\udcff.png": "", "new\nline.png": "", "\u00e9.png": "", "link.png": "path-escape", "pipe.png": "not-a-file",
    }  # fmt: skip


def test_processes_side_by_side_give_the_same_file(store: Store, folder: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    scored(store, one, folder)
    scored(store, two, folder, processes=2)
    assert one.read_bytes() == two.read_bytes()


def test_a_table_names_files_or_holds_them(store: Store, folder: Path, tmp_path: Path) -> None:
    names = ["a/01.png", "a-b/00", "../secret.png", "nowhere.png", "a/13.png"]
    (folder / "list.csv").write_text("file,more\n" + "".join(f"{name},x\n" for name in names) + "a/01.png\n")
    rows = scored(store, tmp_path / "csv.parquet", folder / "list.csv")
    assert [row["source"] for row in rows] == [f"{folder / 'list.csv'}[{n}]" for n in range(6)]
    told = [None if row["error"] is None else row["error"].partition(":")[0] for row in rows]
    assert told == [None, None, "path-escape", "missing-file", "unreadable-image", "ragged-row"]
    elsewhere = tmp_path / "list.jsonl"
    elsewhere.write_text("".join(json.dumps({"where": name}) + "\n" for name in names[:2]) + "{broken\n")
    lines = scored(store, tmp_path / "jsonl.parquet", elsewhere, columns=Columns(path="where"), root=folder)
    assert [row["id"] for row in lines] == [rows[0]["id"], rows[1]["id"], None]
    cells = [{"bytes": (folder / "a" / "01.png").read_bytes(), "path": None}, None]
    pq.write_table(pa.table({"image": cells}), tmp_path / "held.parquet")
    held = scored(store, tmp_path / "out.parquet", tmp_path / "held.parquet")
    assert [row["id"] for row in held] == [rows[0]["id"], None]
    with pytest.raises(UsageError, match=r"the table has no column of paths.*--path-column NAME names it"):
        scored(store, tmp_path / "out.parquet", elsewhere)


def test_the_rows_of_a_table_of_texts_are_read_as_ingest_reads_them(tmp_path: Path) -> None:
    table, texts = tmp_path / "t.csv", Columns(cells=())
    table.write_bytes(b'\xef\xbb\xbflabel;text\nx;a b\n\nx; c \nx;\xff\nx\nx;"two\nlines"\n')
    *good, ragged, two = scored_tables.rows(table, texts)
    assert good[:2] == [b"a b", b"c"] and good[2][0] == "not-utf8"  # type: ignore[index]
    assert ragged[0] == "ragged-row" and two == b"two\nlines"
    table.write_text('label,title,text\nx,One,Two\nx,"never closed,\n' + "x,y,z\n" * 3)
    found = list(scored_tables.rows(table, Columns(cells=("title", "text"))))
    assert found[0] == b"One\n\nTwo" and found[-1][0] == "unreadable-table" and len(found) == 2
    table.write_bytes("text\nA\u00e9\n".encode("utf-16"))
    assert list(scored_tables.rows(table, texts)) == ["A\u00e9".encode()]
    pq.write_table(pa.table({"text": ["one", None, "two"]}), tmp_path / "t.parquet")
    assert list(scored_tables.rows(tmp_path / "t.parquet", texts)) == [b"one", b"\n", b"two"]
    bad = pa.array([b"one", b"\xe9"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, bad.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "t.parquet")
    one, refused = scored_tables.rows(tmp_path / "t.parquet", texts)
    assert one == b"one" and refused[0] == "not-utf8" and "byte 0 of the cell is 0xe9" in refused[1]  # type: ignore[operator]
    (tmp_path / "t.parquet").write_bytes(b"no Parquet")
    assert next(iter(scored_tables.rows(tmp_path / "t.parquet", texts)))[0] == "unreadable-table"
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"text": "one", "n": 1}\n[1]\n{"text": "\\ud800"}\n')
    found = list(scored_tables.rows(lines, texts))
    assert found[0] == b"one" and found[1][0] == "unreadable-row" and found[2] == b"\xed\xa0\x80"


def test_what_cannot_be_scored_is_told_before_any_work(store: Store, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    (tmp_path / "empty").mkdir()
    for given, told in ((tmp_path / "gone", "there is nothing"), (tmp_path / "empty", "holds no example")):
        with pytest.raises(UsageError, match=told):
            scoring_job.to_file(store, CONFIG, [str(given)], output)
    with pytest.raises(UsageError, match="--output is a folder"):
        scoring_job.to_file(store, CONFIG, [str(folder)], folder)
    with pytest.raises(NotFound, match="has no champion"):
        scoring_job.to_file(store, CONFIG.model_copy(update={"name": "other"}), [str(folder)], output)
    held = os.open(tmp_path / "out.parquet.parts", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another command writes to the same --output"):
        scoring_job.to_file(store, CONFIG, [str(folder)], output)
    os.close(held)
    assert not output.exists()


def test_a_result_of_many_row_groups_has_the_rows_in_order(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_job, "GROUP_BYTES", 1)
    names = [row["source"] for row in scored(store, tmp_path / "out.parquet", folder, folder / "a" / "01.png")]
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups == 3
    assert names[:-1] == sorted(names[:-1]) and names[-1].endswith("01.png") and len(names) == 41


def test_the_command_says_how_many_and_fails_where_one_has_no_prediction(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "digits.yaml"
    path.write_text(yaml.safe_dump(CONFIG.model_dump(mode="json", exclude_defaults=True)))
    given = ("predict", path, folder, "--store", store.uri)
    done = call(*given, "--output", tmp_path / "out.parquet", "--json")
    assert done.status == 1 and "1 example could not be scored" in done.err
    assert done.document == {
        "pipeline": "digits", "version": "v1", "rows": 40, "failed": 1, "kept": 0,
        "runtime": "onnxruntime", "output": str(tmp_path / "out.parquet"),
    }  # fmt: skip
    (folder / "a" / "13.png").unlink()
    place = str(tmp_path / "modules")
    modules = f"import atexit; atexit.register(lambda: open({place!r}, 'w').write(' '.join(sys.modules)))"
    done = command(*given, "--output", tmp_path / "out.parquet", cwd=tmp_path, prelude=modules)
    assert not {"tensorflow", "keras", "prefect"} & set((tmp_path / "modules").read_text().split())
    assert done.status == 0 and done.out.startswith("39 rows, 0 without a prediction\n")
    assert call(*given, "--processes", "2").status == 2


# --- by a schedule, to the store -----------------------------------------------------------------


def with_score(**section: Any) -> Pipeline:
    document = CONFIG.model_dump(mode="json", exclude_defaults=True)
    return parse({**document, "score": section}, where="digits.yaml", folder=Path())


def test_the_section_score_is_checked_and_in_no_document() -> None:
    found = with_score(source="s3://bucket/in", schedule={"cron": "0 3 * * *"})
    assert found.score is not None and (found.score.output, found.score.processes) == ("default", 1)
    assert found.model_dump() == CONFIG.model_copy(update={"folder": Path()}).model_dump()
    for section, told in (
        ({"output": "x"}, r"score\.source is missing"),
        ({"source": "in", "output": "../x"}, r"score\.output is not valid.*a name matches"),
        ({"source": "in", "schedule": {"cron": "daily"}}, r"score\.schedule\.cron is not valid.*five fields of cron"),
        ({"source": "in", "schedule": {"cron": "0 3 * * *", "zone": "UTC"}}, r"unknown key score\.schedule\.zone"),
        ({"source": "in", "sink": "x"}, r"unknown key score\.sink.*one of source, output, schedule, processes"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            with_score(**section)


def test_a_scheduled_run_writes_files_and_a_manifest_to_the_store_once(store: Store, folder: Path) -> None:
    config, at = with_score(source=str(folder), output="nightly"), "20261128T030000Z"
    first = stored_scores.score(store, config, at)
    assert (first["rows"], first["failed"], first["kept"], len(first["files"])) == (40, 1, 0, 3)
    keys = [each["key"] for each in first["files"]]
    assert keys == sorted(keys) and all(key.startswith(f"scores/digits/nightly/{at}/0000000") for key in keys)
    rows = [row for key in keys for row in pq.read_table(pa.BufferReader(store.get(key))).to_pylist()]
    assert len(rows) == 40 and rows[0]["source"] == str(folder / "a-b" / "00.png")
    (folder / "a" / "99.png").write_bytes(b"later")
    assert stored_scores.score(store, config, at) == first  # the same run again: it is finished
    assert stored_scores.score(store, config, "20261129T030000Z")["rows"] == 41
    with pytest.raises(ConfigurationError, match="the pipeline digits has nothing to score"):
        stored_scores.score(store, CONFIG, at)
    found = integrity.verify(store, ["digits"], lambda *_: None)
    assert not [each for each in found["damaged"] if each["key"].startswith("scores/")]
    assert artifacts.scored(first) == f"40 rows, 1 without a prediction, by version v1 ({first['runtime']})"
    shown = artifacts.scores("digits", "s3://b/p", first)
    assert (shown.key, "s3://b/p/scores/digits/nightly/" in shown.data) == ("scores-digits", True)


def test_a_pipeline_with_a_section_score_has_a_second_deployment(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    document = CONFIG.model_dump(mode="json", exclude_defaults=True)
    score = {"source": "in", "schedule": {"cron": "0 3 * * *"}}
    (tmp_path / "pipelines" / "digits.yaml").write_text(yaml.safe_dump({**document, "score": score}))
    retrain, scores = wanted_deployments.read(tmp_path)
    assert (retrain.key, retrain.schedule) == (("retrain", "digits"), None)
    assert scores.key == ("score", "digits") and scores.parameters == {"pipeline": "digits"}
    assert scores.schedule is not None and scores.schedule.cron == "0 3 * * *"
    listed = {"parameters": {"pipeline": "digits", "store": "s3://b", "force": True}}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [listed]}))
    _, scores = wanted_deployments.read(tmp_path)
    assert scores.parameters == {"pipeline": "digits", "store": "s3://b"}, "on the store of the retraining"
