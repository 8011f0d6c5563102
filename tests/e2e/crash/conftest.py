"""The data, the one Prefect server and the commands that nobody disturbed, each made once for the package."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows import server
from tests.e2e.crash.scenes import CLASSES, YAML, Place, Scene, ingest_scene, retrain_scene


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def api(prefect_folder: Path) -> Iterator[server.ApiHandle]:
    """A Prefect server that stays up, whoever is killed."""
    handle = server.start(prefect_folder)
    try:
        handle.wait()
        yield handle
    finally:
        handle.close()


@pytest.fixture(scope="package")
def place(source: Path, api: server.ApiHandle) -> Place:
    """The folder, every command reporting to the one server."""
    return Place(source, {"PREFECT_API_URL": api.url, "PREFECT_API_AUTH_STRING": api.login or ""})


@pytest.fixture(scope="package")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    return lambda: (tmp_path_factory.mktemp("stores") / "store").as_uri()


@pytest.fixture(scope="package")
def ingested(place: Place, new_store: Callable[[], str]) -> Scene:
    """`ingest` that nobody disturbed, on a directory store."""
    return ingest_scene(place, new_store)


@pytest.fixture(scope="package")
def retrained(place: Place, ingested: Scene, new_store: Callable[[], str]) -> Scene:
    """`retrain` after it."""
    return retrain_scene(place, ingested.after, new_store)
