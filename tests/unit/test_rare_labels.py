"""Which labels of a first batch are told as likely typing errors, or as too few to train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from leptonflow.data.dataset import admission
from leptonflow.data.ingest import rare_labels
from leptonflow.storage.store import Store
from tests.batches import CONFIG, land, put


@pytest.mark.parametrize(
    ("counts", "near"),
    [
        ({"cat": 30, "dog": 30, "caat": 1}, {"caat": "cat"}),
        ({"Neutral": 40, "neutrl": 4, "bad": 40}, {"neutrl": "Neutral"}),
        ({"male": 30, "female": 29}, {}),  # near, and both are frequent
        ({"day 1": 30, "day 2": 2}, {}),
        ({str(n): n * n + 1 for n in range(10)}, {}),
        ({"cat": 30, "owl": 1}, {}),
        ({"good": 40, "godo": 4}, {"godo": "good"}),
        ({"cat": 30, "cta": 1, "car": 1, "bar": 1}, {"cta": "cat", "car": "cat"}),
        ({"good": 40, "goose": 1}, {}),
        ({"A": 40, "B": 1, "AB": 1, "CD": 1}, {}),
    ],
)
def test_a_rare_label_that_is_spelt_nearly_like_another(counts: dict[str, int], near: dict[str, str]) -> None:
    assert rare_labels.nearly(counts) == near


def test_what_is_told_of_them() -> None:
    (told,) = rare_labels.warnings({"cat": 60, "caat": 6, "dog": 50, "owl": 1}, folds=5)
    assert told.startswith(
        "classes with few examples: 'owl' has 1, 'caat' has 6 (spelt nearly like 'cat', which has 60); "
        "training in 5 folds needs 5 of each class. Where one is a typing error"
    )
    assert told.endswith("`ingest` it with --correct, and then name the classes under `classes` in the YAML")
    (told,) = rare_labels.warnings({"cat": 60, "caat": 6}, folds=5, named=True)
    assert told.endswith("`ingest` it with --correct, and then take it out of `classes` and the gate in the YAML")
    assert rare_labels.warnings({"cat": 60, "dog": 5}, folds=5) == []
    (many,) = rare_labels.warnings({f"{letter * 3}": 1 for letter in "abcdefgh"}, folds=2)
    assert "'eee' has 1, 3 more have few as well;" in many and "fff" not in many


@pytest.mark.usefixtures("admission_tools")
def test_a_first_batch_tells_of_them(place: Store, source: Path) -> None:
    put(source, *(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(10)), "caat/0.png")
    told = admission.admit(place, CONFIG, land(place, source, "first").batch).warnings
    assert [line.partition(";")[0] for line in told] == [
        "classes with few examples: 'caat' has 1 (spelt nearly like 'cat', which has 10)"
    ]
    put(source, "more/cat/11.png", seed=90)
    again = land(place, source / "more", "second")
    assert admission.admit(place, CONFIG, again.batch).warnings == ()
