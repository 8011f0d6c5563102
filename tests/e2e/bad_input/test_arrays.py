"""A pair of .npy: bad rows, pairs that are none, and objects that are never unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.bad_input.sources import LABELS, PIXELS, pair
from tests.e2e.helpers import call, ingest, quarantined


class Trap:
    """What unpickling it would do is seen."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_npy_rows_that_are_bad_are_quarantined_and_the_others_stay(tmp_path: Path, lenient: Path, store: Path) -> None:
    floats = PIXELS.astype(np.float32) / 255
    floats[1, 0, 0] = np.nan
    floats[2, 0, 0] = np.inf
    labels = LABELS.copy()
    labels[3], labels[4] = 7, -1
    floats[5] = floats[0]
    labels[5] = labels[0]
    document, _ = ingest(lenient, pair(tmp_path / "floats", floats, labels), "--batch", "floats", "--store", store)
    assert quarantined(store, "floats") == {
        "train_data.npy[1]": "not-finite",
        "train_data.npy[2]": "not-finite",
        "train_data.npy[3]": "label-out-of-range",
        "train_data.npy[4]": "label-out-of-range",
        "train_data.npy[5]": "duplicate",
    }
    assert (document["arrived"], document["accepted"]) == (10, 5)
    # Grown by a row: landed whole, the old rows known or recalled.
    more = np.concatenate([floats, 1 - floats[:1]])
    grown, _ = ingest(
        lenient, pair(tmp_path / "grown", more, np.append(labels, 1)), "--batch", "grown", "--store", store
    )
    assert (grown["arrived"], grown["accepted"], grown["known"], grown["quarantined"]) == (11, 1, 6, 4)
    # One-hot labels, and integers beyond a byte.
    wide = PIXELS[::-1].astype(np.int32) // 2
    wide[0, 0, 0] = 256
    hot = np.eye(2)[LABELS]
    hot[1] = 1
    one, _ = ingest(lenient, pair(tmp_path / "hot", wide, hot), "--batch", "hot", "--store", store)
    assert quarantined(store, "hot") == {
        "train_data.npy[0]": "out-of-range",
        "train_data.npy[1]": "label-out-of-range",
    }
    assert one["accepted"] == 8


@pytest.mark.parametrize(
    ("values", "labels", "rule", "arrived"),
    [
        (PIXELS, LABELS[:7], "length-mismatch", 10),
        (PIXELS[:, 0], LABELS, "wrong-rank", 10),
        (PIXELS.reshape(10, 4, 8, 2), LABELS, "wrong-rank", 10),
        (PIXELS, LABELS.reshape(1, 10, 1), "wrong-rank", 10),
        (PIXELS, LABELS.astype(str), "unreadable-array", 10),
        (np.float32(3), LABELS, "wrong-rank", 1),
        (PIXELS.astype(np.complex64), LABELS, "unreadable-array", 1),
    ],
)
def test_npy_pairs_that_are_no_pairs_are_quarantined_whole(
    tmp_path: Path, lenient: Path, strict: Path, store: Path, values: Any, labels: Any, rule: str, arrived: int
) -> None:
    source = pair(tmp_path / "pair", values, labels)
    document, _ = ingest(lenient, source, "--batch", "pair", "--store", store)
    assert document["reasons"] == {rule: arrived}
    assert (document["accepted"], document["quarantined"]) == (0, arrived)
    document, result = ingest(strict, source, "--batch", "again", "--store", store.with_name("other"))
    assert (result.status, document["outcome"], document["reasons"]) == (3, "refused", {rule: arrived})


def test_object_arrays_are_never_unpickled(tmp_path: Path, lenient: Path, store: Path) -> None:
    sprung = tmp_path / "sprung"
    objects = np.empty(3, object)
    objects[:] = [Trap(sprung)] * 3
    document, _ = ingest(
        lenient, pair(tmp_path / "data", objects, LABELS[:3], allow_pickle=True), "--batch", "data", "--store", store
    )
    assert document["reasons"] == {"object-array": 3}
    source = pair(tmp_path / "labels", PIXELS[:3], objects, allow_pickle=True)
    document, _ = ingest(lenient, source, "--batch", "labels", "--store", store)
    assert document["reasons"] == {"object-array": 3}
    assert call("init", tmp_path / "new", "--from", source).status in (0, 2)
    assert not sprung.exists()
    (source / "train_data.npy").write_bytes(b"\x93NUMPY garbage")
    document, _ = ingest(lenient, source, "--batch", "garbage", "--store", store)
    assert document["reasons"] == {"unreadable-array": 1}
    (source / "train_data.npy").write_bytes(b"")
    document, _ = ingest(lenient, source, "--batch", "empty", "--store", store)
    assert document["quarantined"] == document["arrived"] == 1
