"""A fit's first weights are its seed's alone, whatever the other threads of the process draw meanwhile."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from leptonflow.training import workspace
from leptonflow.workloads import catalog
from schemas.errors import LeptonflowError
from tests.fit_examples import CLASSES, pipeline


@contextmanager
def others_drawing() -> Iterator[None]:
    """Threads that use Python's global generator, as Prefect's clients do for the length of their pauses."""
    done = threading.Event()

    def draw() -> None:
        while not done.is_set():
            random.random()

    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def weights(seed: int) -> list[bytes]:
    config = pipeline()
    with workspace.MODEL_LOCK:
        model = workspace._fresh(catalog.load(config.workload), config, CLASSES, seed, steps=1).model
    return [np.asarray(variable.value).tobytes() for variable in model.variables]


@pytest.mark.slow
def test_other_threads_have_no_part_in_the_first_weights() -> None:
    quiet = weights(7)
    assert weights(7) == quiet
    assert weights(8) != quiet
    with others_drawing():
        disturbed = [weights(7) for _ in range(2)]
    assert disturbed == [quiet] * 2


def test_keras_draws_from_the_global_generator_again_afterwards() -> None:
    from keras.src.random import seed_generator

    weights(7)
    assert seed_generator.python_random is random


def test_a_disk_of_temporary_files_without_room_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.keras").symlink_to("/dev/full")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda: nullcontext(str(tmp_path)))
    config = pipeline()
    with pytest.raises(LeptonflowError, match=r"folder of temporary files.*No space left.*TMPDIR") as caught:
        workspace.check_loadable(catalog.load(config.workload), config, CLASSES)
    assert type(caught.value) is LeptonflowError, "a trial of `tune` that raises it is not one that failed"
