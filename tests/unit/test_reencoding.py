"""Accepted examples encoded for another input: what was accepted when less was checked stays accepted."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from leptonflow.data.dataset import admission, dataset_state, part_files, reencoding
from leptonflow.data.ingest import landing
from leptonflow.data.validation import examination
from leptonflow.data.validation.examined_rows import Row
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.media.image import example
from schemas.config import Pipeline
from tests.batches import CONFIG
from tests.unit.test_damage import cut, photo, saved

OPEN: Pipeline = CONFIG.model_copy(update={"classes": None})
pytestmark = pytest.mark.usefixtures("admission_tools")


def landed(store: Store) -> dict[str, bytes]:
    """A plain batch with an image that is cut and closed, one beyond its scale, and whole ones."""
    wide = io.BytesIO()
    Image.fromarray(np.linspace(-10, 300, 64, dtype=np.float32).reshape(8, 8)).save(wide, "TIFF")
    files = {"cat/cut.jpg": cut(saved("JPEG", "RGB", {}), 0.8) + b"\xff\xd9", "dog/wide.tif": wide.getvalue()}
    files |= {f"{label}/{n}.jpg": saved("JPEG", "RGB", {}, photo(32, seed=n + 9 * (label == "cat")))
              for label in ("cat", "dog") for n in range(4)}  # fmt: skip
    for name, data in files.items():
        store.create(f"landing/pets/old/{name}", data)
    store.create("landing/pets/old/_READY", b"")
    return files


def test_an_accepted_example_stays_accepted(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    files = landed(place)
    examine = examination.examine

    def of_before(store: Store, config: Pipeline, *given: object, **named: object) -> list[Row]:
        """As a release that checked less saw them."""
        rows: list[Row] = examine(store, config, *given, **named)  # type: ignore[arg-type]
        facts = next(row.facts for row in rows if row.rule is None)
        return [
            row if row.rule is None else row._replace(
                rule=None, reason=None, id=row.sha256, facts=facts,
                encoded=example.encode_accepted(files[row.source], config.input),
            ) for row in rows
        ]  # fmt: skip

    with monkeypatch.context() as patched:
        patched.setattr(examination, "examine", of_before)
        assert admission.admit(place, OPEN, "old").accepted == 10
    wider = OPEN.model_copy(update={"input": (12, 10, 3)})
    snapshot = reencoding.preprocess(place, wider)
    found = [size for part in snapshot.parts for size in part_files.read_part(place, part, ("pixels",))["pixels"]]
    assert len(found) == 10 and {len(pixels.as_py()) for pixels in found} == {12 * 10 * 3}
    assert snapshot.preprocessing == dataset_state.preprocessing(wider)
    batch = landing.open_batch(place, "pets", "old")
    workload = catalog.load(OPEN.workload)
    today = {row.source: row.rule for row in examination.examine(place, wider, batch, workload)}
    assert (today["cat/cut.jpg"], today["dog/wide.tif"]) == ("unreadable-image", "out-of-range")


def test_what_was_accepted_is_cut_off_as_it_was_then() -> None:
    wide = np.array([[-5.0, 100.4], [300.0, 7.0]], np.float32)
    file = io.BytesIO()
    Image.fromarray(wide).save(file, "TIFF")
    assert list(example.encode_accepted(file.getvalue(), (2, 2, 1)) or b"") == [0, 100, 255, 7]
    whole = saved("JPEG", "RGB", {})
    assert example.encode_accepted(whole, (9, 9, 3)) == example.examine(whole, (9, 9, 3)).encoded
    assert example.encode_accepted(b"nothing", (9, 9, 3)) is None
