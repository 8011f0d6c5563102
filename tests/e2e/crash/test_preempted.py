"""A retraining that gets SIGTERM, and one that is killed, within a fit: the next one goes on with that fit."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from leptonflow.storage.address import open_store
from tests.e2e.crash.scenes import INGEST, RETRAIN, YAML, Place
from tests.e2e.crash.test_children import noted, until

GONE_SECONDS = 10.0
TRAINING = "training: {epochs: 400, folds: 2, checkpoint: {minutes: 0.001}}"


def of_the_final_fit(key: str) -> bool:
    return "/final/checkpoints/" in key


@pytest.mark.slow  # four commands; tests/unit/test_checkpoints.py stops and kills fits alone
def test_sigterm_and_kill_9_cost_no_finished_step(source: Path, place: Place, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(YAML.replace("training: {epochs: 1, folds: 2}", TRAINING))
    (tmp_path / "first").symlink_to(source / "first")
    here, uri = Place(tmp_path, place.environment), (tmp_path / "store").as_uri()
    store = open_store(uri)
    here.run(uri, *INGEST)

    process, record = here.start(uri, RETRAIN)
    until(partial(noted, record, "^scratch/tiny/.*/fold-0/checkpoints/"), 240, "no checkpoint")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM, errors
    assert time.monotonic() - began < GONE_SECONDS
    (saved,) = [key for key in store.keys("scratch") if key.endswith(".npz")]

    process, _ = here.start(uri, RETRAIN)
    until(lambda: any(map(of_the_final_fit, store.keys("scratch"))), 240, "no checkpoint of the final fit")
    os.killpg(process.pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    epoch = int(saved.rpartition("/")[2].partition("-")[0])
    assert f"leptonflow: fold 1 goes on from a checkpoint: epoch {epoch}, " in errors
    assert any(map(of_the_final_fit, store.keys("scratch")))

    process, _ = here.start(uri, RETRAIN)
    out, errors = process.communicate()
    assert process.returncode == 0 and '"verdict": "promoted"' in out, errors
    assert "leptonflow: final fit goes on from a checkpoint: epoch " in errors
    assert not store.keys("scratch")
