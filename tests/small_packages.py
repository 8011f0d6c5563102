"""Packages of a few bytes, whole by every sha256, for tests that promote without training anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from leptonflow.core.hashing import canonical, sha256
from leptonflow.data.dataset.example_sets import Examples
from leptonflow.keras_runtime import keras_models
from leptonflow.registry import package_builder
from leptonflow.storage.store import Store
from schemas.records import InfraResult, ModelManifest, ObjectRef, Plan, SnapshotRef
from tests.fit_examples import pipeline

PIPELINE = "digits"
Files = Iterable[tuple[str, bytes]]


def put(store: Store, version: str, number: int = 1) -> str:
    """A version that learned from snapshot `number`; returns the sha256 of its manifest."""
    files = {"model.keras": b"weights of " + version.encode(), "labels.json": b'["0","1"]'}
    return _put(store, version, number, files)


def _put(
    store: Store, version: str, number: int, files: dict[str, bytes], shape: tuple[int, int, int] = (28, 28, 1)
) -> str:
    for name, data in files.items():
        store.create(f"models/{PIPELINE}/{version}/{name}", data)
    manifest = canonical(
        ModelManifest(
            pipeline=PIPELINE, version=version, run_id=f"run-{version}", workload="image_classification",
            classes=("0", "1"), input=shape, preprocessing="p", snapshot=f"s{number}", snapshot_number=number,
            config={}, cv={}, code={}, libraries={}, created_at=f"2026-01-{number:02d}T00:00:00+00:00",
            files=tuple(ObjectRef(key=n, sha256=sha256(d), bytes=len(d)) for n, d in files.items()),
        )
    )  # fmt: skip
    store.create(f"models/{PIPELINE}/{version}/manifest.json", manifest)
    return sha256(manifest)


def put_model(store: Store, version: str, model: Any, shape: tuple[int, int, int], files: Files = ()) -> str:
    """A version with that Keras model of two classes, what it predicts of 5 images, and some more files."""
    config = pipeline(name=PIPELINE, input=list(shape))
    pixels = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    examples = Examples([str(n) for n in range(5)], np.zeros(5, np.int64), pixels, [], [])
    every = {
        "model.keras": keras_models.save(model), "labels.json": b'["0","1"]', "preprocessing.json": b"{}",
        "reference.parquet": package_builder.write_reference(config, model, None, examples), **dict(files),
    }  # fmt: skip
    return _put(store, version, 1, every, shape)


def plan(version: str, run_id: str | None = None, number: int = 1) -> Plan:
    """The plan of the run that trained such a version."""
    snapshot = SnapshotRef(
        pipeline=PIPELINE, number=number, snapshot=f"s{number}", content="0" * 64, classes=("0", "1"),
        preprocessing="p", holdout=0.2, parts=(), batches=(), examples=0,
    )  # fmt: skip
    return Plan(
        pipeline=PIPELINE, attempt=0, version=version, run_id=run_id or f"run-{version}", snapshot=snapshot,
        waiting=(), trained=True, finished=False,
    )  # fmt: skip


def fit_to_run(version: str, manifest_sha256: str) -> InfraResult:
    """An infra-validation that every package passes."""
    return InfraResult(
        version=version, manifest_sha256=manifest_sha256, passed=True, largest_difference=0.0, tolerance=1e-5,
        examples=2, sentence="reproduced", seconds=0.0,
    )  # fmt: skip
