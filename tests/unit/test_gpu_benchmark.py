"""What benchmarks/gpu takes to a machine without a network, and that its parts run on JAX."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import gather

ROOT = Path(__file__).resolve().parents[2]


def test_what_the_machine_lacks_is_locked_and_without_tensorflow() -> None:
    names = gather.needed(["leptonflow"], frozenset(gather.needed(gather.PRESENT) | gather.UNUSED)) - {"leptonflow"}
    assert {"keras", "prefect", "great-expectations", "duckdb", "obstore", "pydantic"} <= names
    assert not names & {"tensorflow", "jax", "numpy", "scipy", "pyarrow", "scikit-learn", "pillow", "optax"}
    entries = re.findall(r"(?m)^([a-z0-9-]+)==[^\n]*\\\n    --hash=sha256:", gather.locked(names))
    assert set(entries) == names


@pytest.mark.slow
@pytest.mark.parametrize("part", ["digits", "resume", "cnn float32"])
def test_a_part_runs_on_jax(part: str) -> None:
    pytest.importorskip("jax", reason="jax is not installed: `pip install jax` to run this")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.training", "--quick", "--part", part],
        cwd=ROOT, env={**os.environ, "KERAS_BACKEND": "jax"}, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    rows = json.loads(done.stdout.splitlines()[-1])
    assert rows and all(isinstance(row[1], float) and row[1] > 0 for row in rows)
