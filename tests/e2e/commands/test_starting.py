"""`training.start_from: champion` from outside: new data starts from the champion, no new data is `unchanged`."""

from __future__ import annotations

import pytest

from tests.e2e.commands.places import EACH, KEYS, Place, retrained
from tests.e2e.helpers import call, digits


@pytest.mark.slow  # tests/unit/test_starting_weights.py is quick
def test_new_data_starts_from_the_champion_and_no_new_data_is_unchanged(copy: Place) -> None:
    copy.configure(training={**KEYS["training"], "start_from": "champion"})
    landing = copy.store / "landing" / "small" / "tuesday"
    digits(landing, 3, 12, skip=EACH)
    (landing / "_READY").touch()
    document = retrained(copy("retrain"), 0)
    assert document["verdict"] == "promoted"
    against = next(rule for rule in document["gate"] if rule["rule"] == "against_champion")
    assert against["passed"] is True, "the chain of versions proves that neither learned from the holdout"
    shown = copy("models", "--show", document["version"]).document
    start, before = shown["lineage"]["start"], copy.told["A"]["version"]
    assert (start["version"], start["layers"], start["of"], start["mismatches"]) == (before, 3, 3, [])
    card = (copy.store / "models" / "small" / document["version"] / "model_card.md").read_text()
    assert f"the final fit started from the version {before}" in card
    again = retrained(copy("retrain"), 0)
    assert (again["verdict"], again["version"]) == ("unchanged", document["version"])
    assert call("reproduce", document["run_id"], "--store", copy.store, "--json").document["equal"]
