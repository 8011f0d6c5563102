"""Work that does not fit into memory is not begun: the numbers, and what to change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leptonflow.core import capacity, machine, spools
from leptonflow.data.dataset import admission, dataset_state, holdout_split
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.image_classification.panels import remarks
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError, UsageError
from tests.batches import CONFIG, image, land, npy, put, random_rows

BASE = {"name": "p", "workload": "image_classification", "gate": [{"rule": "at_least", "metric": "f1", "value": 0}]}
WIDE: Pipeline = CONFIG.model_copy(update={"input": (224, 224, 3)})


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that grants 600 MB."""
    monkeypatch.setattr(machine, "SELF", tmp_path / "self")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    (tmp_path / "self").write_text("0::/\n")
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "memory.max").write_text(str(600 << 20))


@pytest.mark.usefixtures("small")
def test_a_training_set_lies_in_memory_or_in_a_file_or_is_exit_2_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide, small = (224 * 224 * 3, "224 x 224 x 3"), (8 * 8 * 3, "8 x 8 x 3")
    found = capacity.place(*small, 5000, spoolable=True)
    assert found.in_memory and found.told == "5000 examples of 8 x 8 x 3 (1.0 MB) are kept in memory"
    found = capacity.place(*wide, 5000, spoolable=True)
    where = f"are read from a file in {spools.folder()}, as they take more than 26.2 MB (a quarter of the 0.6 GB of"
    said = ("5000 examples of 224 x 224 x 3 (0.8 GB)", where)
    assert not found.in_memory and all(words in found.told for words in said), found.told
    for examples, spoolable in ((5000, False), (10**10, True)):
        with pytest.raises(ConfigurationError) as caught:
            capacity.place(*wide, examples, spoolable)
        line = caught.value.line()
        told = (f"{examples} examples of 224 x 224 x 3 (", "at most", "of the 0.6 GB of this machine", "`input`")
        assert all(words in line for words in told), line
        assert caught.value.exit_status == 2 and ("TMPDIR" in line) == spoolable
    monkeypatch.setenv("LEPTONFLOW_TRAINING_MEMORY", "2MB")
    assert capacity.place(*small, 5000, spoolable=True).in_memory
    found = capacity.place(*small, 5500, spoolable=True)
    assert not found.in_memory and "more than 1.0 MB (half of LEPTONFLOW_TRAINING_MEMORY)" in found.told
    monkeypatch.setenv("LEPTONFLOW_TRAINING_MEMORY", "much")
    with pytest.raises(UsageError, match="LEPTONFLOW_TRAINING_MEMORY"):
        capacity.place(*small, 1, spoolable=True)


@pytest.mark.usefixtures("small")
def test_a_step_that_does_not_fit_is_exit_2_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    for kind in ("cnn", "resnet"):
        model = {"kind": kind, "filters": [32, 64, 64]}
        wide = parse({**BASE, "input": [4096, 4096, 3], "model": model}, where="p.yaml", folder=Path("."))
        need = catalog.load(wide.workload).step_bytes(wide)
        with pytest.raises(ConfigurationError) as caught:
            capacity.check_step(need, "4096 x 4096 x 3", wide.training)
        line = caught.value.line()
        said = ("a batch of 32 examples of 4096 x 4096 x 3 needs at least", "0.6 GB", "Lower training.batch_size")
        assert all(words in line for words in said), line
        assert caught.value.exit_status == 2 and need > 10**10
        least = parse({**BASE, "input": [32, 32, 3], "model": model}, where="p.yaml", folder=Path("."))
        assert 10**6 < catalog.load(least.workload).step_bytes(least) < 10**8
        capacity.check_step(catalog.load(least.workload).step_bytes(least), "32 x 32 x 3", least.training)


@pytest.mark.usefixtures("small")
def test_a_batch_that_does_not_fit_is_not_landed(place: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "BATCH_COPIES", 400_000)
    put(source, *[f"cat/{n}.png" for n in range(12)])
    with pytest.raises(UsageError, match=r"12 examples of \d+ x \d+ x 3 need about .* Send it as several batches"):
        land(place, source)
    assert not list(place.keys("landing"))


@pytest.mark.usefixtures("small", "admission_tools")
def test_a_batch_of_others_that_does_not_fit_keeps_nothing_waiting(
    place: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npy(source, random_rows(12), np.arange(12) % 2)
    for name in ("train_data.npy", "train_labels.npy"):
        place.create(f"landing/pets/n/{name}", (source / name).read_bytes())
    for number in range(12):
        place.create(f"landing/pets/f/cat/{number}.png", image(number))
    monkeypatch.setattr(capacity, "BATCH_COPIES", 400_000)
    for batch in ("n", "f"):
        place.create(f"landing/pets/{batch}/_READY", b"")
        outcome = admission.admit(place, CONFIG, batch)
        assert outcome.outcome == "refused" and "does not fit into memory" in outcome.sentence


@pytest.mark.usefixtures("admission_tools")
def test_images_that_are_enlarged_are_told_at_ingest_and_at_the_split(place: Store) -> None:
    config: Pipeline = CONFIG.model_copy(update={"input": (32, 32, 3), "classes": None})
    for number in range(12):
        place.create(f"landing/pets/b/{'cat' if number % 2 else 'dog'}/{number}.png", image(number))
    place.create("landing/pets/b/_READY", b"")
    outcome = admission.admit(place, config, "b")
    assert outcome.accepted == 12
    told = "12 of 12 images are smaller than the input of 32 x 32 and are enlarged to it"
    assert told in outcome.warnings[0]
    snapshot = dataset_state.state(config, dataset_state.snapshots(place, "pets"))
    assert snapshot is not None and told in holdout_split.split(place, config, snapshot).warnings[0]


def test_remarks_on_sizes() -> None:
    def of(*sizes: tuple[int, int]) -> list[str]:
        return remarks([{"width": width, "height": height} for width, height in sizes], (32, 64, 3))

    assert of((64, 32), (10, 40), (70, 20)) == of() == []
    assert of((10, 20), (10, 20), (64, 32)) == [
        "2 of 3 images are smaller than the input of 32 x 64 and are enlarged to it, most often from 20 x 10: "
        "a smaller `input` in the YAML has the same information and trains faster"
    ]
