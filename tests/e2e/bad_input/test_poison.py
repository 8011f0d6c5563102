"""Batches that cannot be read beside a good one: `retrain` refuses each by name and trains on the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.bad_input.sources import CLASSES
from tests.e2e.helpers import call, command, good, pipeline

POISON = ("array", "listing", "table", "text", "unfolding")


def lay(landing: Path) -> None:
    """A plain batch of each kind, closed."""
    for name in POISON:
        (landing / name).mkdir(parents=True)
        (landing / name / "_READY").touch()
    (landing / "text/_READY").write_text("done on monday\n")
    (landing / "listing/_READY").write_text(
        '{"digest": "x", "layout": "table", "files": [], "known": 0, "ignored": 0, "rows": [-5], "refused": '
        '[{"source": "no number", "label": null, "sha256": null, "rule": "r", "reason": "r"}]}'
    )
    (landing / "array/x_data.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00{garbage")
    np.save(landing / "array/x_labels.npy", np.arange(3))
    (landing / "table/t.csv").write_bytes(b'path,label\n"unclosed' + bytes(9))
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 5600, pa.int32()), pa.array(["x" * 1_000_000]))
    bomb = pa.table({"path": rows, "label": rows})
    pq.write_table(bomb, landing / "unfolding/t.parquet", store_schema=False, compression="zstd")


@pytest.mark.slow
def test_a_batch_that_cannot_be_read_blocks_no_other(tmp_path: Path, store: Path) -> None:
    gate = [{"rule": "at_least", "metric": "accuracy", "value": 0.0}]
    yaml = pipeline(
        tmp_path / "p",
        classes=CLASSES,
        gate=gate,
        training={"epochs": 1, "folds": 2},
        model={"filters": [4], "dense": 4},
    )
    lay(store / "landing/small")
    good(store / "landing/small/whole", CLASSES, 15)
    (store / "landing/small/whole/_READY").touch()
    assert call("status", yaml, "--store", store, "--json").document["waiting"] == [*POISON, "whole"]
    trained = command("retrain", yaml, "--store", store, "--json", cwd=tmp_path)
    assert (trained.status, trained.document["verdict"]) == (0, "promoted"), trained.told()
    status = call("status", yaml, "--store", store, "--json").document
    assert status["waiting"] == [] and status["batches"] == ["whole"] and status["examples"] == 30
    refused = {each["batch"]: each for each in status["refused"]}
    assert tuple(refused) == POISON
    assert "done on monday" in refused["text"]["sentence"] and "cannot be examined" in refused["listing"]["sentence"]
    assert refused["array"]["reasons"] == {"unreadable-array": 1}
    assert refused["table"]["reasons"] == refused["unfolding"]["reasons"] == {"unreadable-table": 1}
    doctor = call("doctor", "--store", store)
    assert all(f"refused: small/{name}" in doctor.out for name in POISON)
    for name in POISON:
        assert call("discard", yaml, name, "--reason", "of no use", "--store", store).status == 0
    status = call("status", yaml, "--store", store, "--json").document
    assert status["refused"] == [] and [each["batch"] for each in status["discarded"]] == [*POISON]
    assert call("discard", yaml, "whole", "--reason", "x", "--store", store, "--json").status == 1
    assert call("retrain", yaml, "--store", store, "--json").document["verdict"] == "unchanged"
