"""A model of the user's own from ingest to promotion: the example of docs/transfer-learning.md, which also prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.helpers import call, digits, ingest
from tests.unit.test_transfer_page import example, random_weights

GATE = [{"rule": "at_least", "metric": "accuracy", "value": 0.0}]


@pytest.mark.slow
def test_transfer_learning_from_ingest_to_promotion(work: Path, tmp_path: Path) -> None:
    training = {"epochs": 2, "batch_size": 16, "folds": 2}
    yaml = example(tmp_path / "p", random_weights(tmp_path), training=training, gate=GATE)
    code, weights = yaml.with_name("mobilenet.py"), yaml.with_name("mobilenet.weights.h5")
    noisy = code.read_text().replace("    base.trainable = False\n", '    base.trainable = False\n    print("built")\n')
    noisy = noisy.replace("        if epoch ==", '        print("an epoch begins")\n        if epoch ==')
    code.write_text(noisy + '\nNOTES = "notes.txt"\n')
    yaml.with_name("notes.txt").write_text("nobody declares it")
    digits(tmp_path / "photos", 2, 40)
    store = tmp_path / "store"
    ingest(yaml, tmp_path / "photos", "--store", store)
    result = call("retrain", yaml, "--store", store, "--json")
    assert result.status == 0, result.told()
    assert result.document["verdict"] == "promoted", "one document, whatever the model prints"
    assert "names notes.txt, which model.files does not declare" in " ".join(result.document["warnings"])
    assert "built" in result.err and "an epoch begins" in result.err
    version = result.document["version"]
    card = next((store / "models").rglob("model_card.md")).read_text()
    assert "| base | Functional | (N, 1280) float32 |" in card and "declared file mobilenet.weights.h5" in card
    assert call("retrain", yaml, "--store", store, "--json").document["verdict"] == "unchanged"
    (row,) = call("predict", yaml, next((tmp_path / "photos").rglob("*.png")), "--store", store, "--json").document
    assert (row["version"], row["error"]) == (version, None)
    weights.unlink()
    missing = call("retrain", yaml, "--store", store, "--json")
    assert missing.status == 2 and "model.weights mobilenet.weights.h5" in str(missing.error["message"])
