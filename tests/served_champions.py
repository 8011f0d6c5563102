"""Champions of a few weights for the tests of serving: 12 x 12 grey images of two classes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette

from leptonflow.core.hashing import canonical, sha256
from leptonflow.data.dataset.example_sets import Examples
from leptonflow.keras_runtime import keras_models
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.registry import manual_decisions, package_builder
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.image_classification import cnn
from schemas.config import Pipeline
from schemas.image_classification import ImageModel
from schemas.records import ModelManifest, ObjectRef
from serving import running
from tests import small_packages
from tests.fit_examples import pipeline
from tests.texts import CLASSES, sample

NAME = small_packages.PIPELINE
SHAPE = (12, 12, 1)


def config(**serving: Any) -> Pipeline:
    """The pipeline, with its section `serving`."""
    return pipeline(name=NAME, input=list(SHAPE), serving=serving)


def model(seed: int) -> Any:
    """Another model for each seed."""
    keras().utils.set_random_seed(seed)
    return cnn.build(ImageModel(filters=(4, 8), dense=6), SHAPE, 2)


def promote(store: Store, version: str, made: Any, files: small_packages.Files = ()) -> None:
    """A new version that becomes champion, with some more files in its package."""
    small_packages.put_model(store, version, made, SHAPE, files)
    manual_decisions.promote(store, NAME, version, "better", "tester", small_packages.fit_to_run)


def png(seed: int, size: int = 12) -> bytes:
    """A grey image as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)
    data = BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@contextmanager
def listening(app: Starlette) -> Iterator[int]:
    """A real server on this machine, in a thread; yields its port."""
    server = running.server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


TEXTS = "reports"


def text_config(**serving: Any) -> Pipeline:
    """A pipeline of texts."""
    section = {"length": 16, "vocabulary": 200}
    return pipeline(name=TEXTS, workload="text_classification", input=section, model={"kind": "bag"}, serving=serving)


def promote_texts(store: Store, version: str) -> None:
    """A champion of texts, with what it learned of its vocabulary."""
    config, (texts, _) = text_config(), sample(60)
    workload = catalog.load(config.workload)
    array = np.array(texts, object)
    vocabulary = workload.vocabulary(array, config.input) if workload.vocabulary else ""
    keras().utils.set_random_seed(3)
    made = workload.build(config, CLASSES)
    examples = Examples([str(n) for n in range(60)], np.zeros(60, np.int64), array, [], [])
    files = {
        "model.keras": keras_models.save(made), "labels.json": canonical(CLASSES), "preprocessing.json": b"{}",
        "vocabulary.json": vocabulary.encode(),
        "reference.parquet": package_builder.write_reference(config, made, vocabulary, examples),
    }  # fmt: skip
    for name, data in files.items():
        store.create(f"models/{TEXTS}/{version}/{name}", data)
    manifest = ModelManifest(
        pipeline=TEXTS, version=version, run_id=f"run-{version}", workload=config.workload, classes=CLASSES,
        input=config.input, preprocessing="p", snapshot="s1", snapshot_number=1, config={}, cv={}, code={},
        libraries={}, created_at="2026-01-01T00:00:00+00:00",
        files=tuple(ObjectRef(key=n, sha256=sha256(d), bytes=len(d)) for n, d in files.items()),
    )  # fmt: skip
    store.create(f"models/{TEXTS}/{version}/manifest.json", canonical(manifest))
    manual_decisions.promote(store, TEXTS, version, "better", "tester", small_packages.fit_to_run)
