"""Sources to land and short ways to land and examine them, shared by the tests of landing and examining."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from leptonflow.data.ingest import landing
from leptonflow.data.ingest.landing import Index, Landed
from leptonflow.data.validation import examination
from leptonflow.data.validation.examined_rows import Row
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import parse

CONFIG = parse(
    {
        "name": "pets",
        "workload": "image_classification",
        "input": [8, 8, 3],
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}],
    },
    where="test",
    folder=Path(),
)
WORKLOAD = catalog.load("image_classification")


def image(seed: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def put(root: Path, *names: str, seed: int = 0) -> list[bytes]:
    """An image of its own under each name."""
    data = [image(seed + number) for number in range(len(names))]
    for name, each in zip(names, data, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(each)
    return data


def land(store: Store, source: Path, name: str | None = None, index: Index | None = None) -> Landed:
    return landing.land(store, CONFIG, source, name, index or Index())


def examined(store: Store, batch: str, classes: Iterable[str] | None = None, **given: Any) -> list[Row]:
    opened = landing.open_batch(store, "pets", batch)
    return examination.examine(
        store, CONFIG, opened, WORKLOAD, classes=tuple(classes) if classes is not None else None, **given
    )


def arrive(store: Store, source: Path, classes: Iterable[str] | None = None, index: Index | None = None) -> list[Row]:
    """Land and examine. What was landed, known and refused is what arrived."""
    landed = land(store, source, index=index)
    rows = examined(store, landed.batch, classes)
    for row in rows:
        assert (row.rule is None) == (row.encoded is not None) == (row.id is not None)
        assert row.rule is None or row.reason
    return rows


def rules(rows: Iterable[Row]) -> dict[str, str | None]:
    return {row.source: row.rule for row in rows}


def npy(source: Path, data: Any, labels: Any, **how: Any) -> Path:
    np.save(source / "train_data.npy", data, **how)
    np.save(source / "train_labels.npy", labels, **how)
    return source


def random_rows(count: int, shape: tuple[int, ...] = (9, 9, 3)) -> Any:
    return np.random.default_rng(1).integers(0, 256, (count, *shape), dtype=np.uint8)


def table_of(source: Path) -> None:
    put(source, "a.png", "b.png", "c.png")
    (source / "labels.csv").write_text("path,label\na.png,cat\nb.png,dog\nc.png,dog\n")
