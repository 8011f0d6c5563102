"""Work that does not fit into memory is not begun: the numbers, and what to change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leptonflow.core import capacity, machine
from leptonflow.data.dataset import admission, dataset_state, holdout_split
from leptonflow.storage.store import Store
from leptonflow.workloads.image_classification.panels import remarks
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, UsageError
from schemas.records import Split
from tests.batches import CONFIG, image, land, npy, put, random_rows

WIDE: Pipeline = CONFIG.model_copy(update={"input": (224, 224, 3)})


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that grants 600 MB."""
    monkeypatch.setattr(machine, "SELF", tmp_path / "self")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    (tmp_path / "self").write_text("0::/\n")
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "memory.max").write_text(str(600 << 20))


def counts(train: int, holdout: int) -> Split:
    return Split(train=train, holdout=holdout, train_per_class={}, holdout_per_class={}, rejected=None)


@pytest.mark.usefixtures("small")
def test_a_training_set_that_does_not_fit_is_exit_2_with_the_numbers() -> None:
    capacity.check_training(224 * 224 * 3, "224 x 224 x 3", counts(300, 60))
    with pytest.raises(ConfigurationError) as caught:
        capacity.check_training(224 * 224 * 3, "224 x 224 x 3", counts(4000, 1000))
    line = caught.value.line()
    said = ("5000 examples of 224 x 224 x 3 need about 1.4 GB", "4000 of them are held twice", "0.6 GB", "`input`")
    assert all(words in line for words in said), line
    assert caught.value.exit_status == 2
    capacity.check_training(8 * 8 * 3, "8 x 8 x 3", counts(4000, 1000))


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
