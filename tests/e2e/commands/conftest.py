"""The places where commands run, each made once for the package, and copies of them to change.

What trains is in three package fixtures; a test that changes something takes a copy of the store, which
is itself a promise: a store that was copied works. The folder's Prefect server stays up meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from leptonflow.data.dataset import admission
from tests.e2e.commands.places import EACH, KEYS, Place, moved, retrained
from tests.e2e.helpers import digits, ingest, working_folder


@pytest.fixture(scope="package")
def work(
    tmp_path_factory: pytest.TempPathFactory, admission_tools: admission.Tools, prefect_folder: Path
) -> Iterator[Path]:
    """The working folder of all commands here, one Great Expectations for all of them."""
    with working_folder(tmp_path_factory.mktemp("work"), prefect_folder) as folder:
        yield folder


@pytest.fixture(scope="package")
def first(work: Path) -> Place:
    """One batch, one run: the champion A."""
    place = Place(work / "first", {})
    place.configure()
    digits(place.folder / "monday", 3, EACH)
    (place.folder / "monday" / "0" / "broken.png").write_bytes(b"")
    document, _ = ingest(place.yaml, place.folder / "monday", "--batch", "monday", "--store", place.store)
    place.told["ingest"] = document
    place.told["A"] = retrained(place("retrain"), 0)
    return place


@pytest.fixture(scope="package")
def third(first: Place, work: Path) -> Place:
    """A, then new data (B), then another seed (C): three champions in a row."""
    place = moved(first, work / "third")
    landing = place.store / "landing" / "small"
    digits(landing / "tuesday", 3, 12, skip=EACH)
    (landing / "rubbish" / "1").mkdir(parents=True)
    for number in range(3):
        (landing / "rubbish" / "1" / f"{number}.png").write_text(f"rubbish {number}")
    for batch in ("tuesday", "rubbish"):
        (landing / batch / "_READY").touch()
    assert place("status").document["waiting"] == ["rubbish", "tuesday"]
    place.told["B"] = retrained(place("retrain"), 0)
    place.configure(training={**KEYS["training"], "seed": 1})
    place.told["C"] = retrained(place("retrain"), 0)
    place.configure()
    return place


@pytest.fixture
def copy(first: Place, tmp_path: Path) -> Place:
    return moved(first, tmp_path / "copy")


@pytest.fixture
def champions(third: Place, tmp_path: Path) -> Place:
    return moved(third, tmp_path / "copy")
