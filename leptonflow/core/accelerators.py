"""What the machine's accelerator can do, asked of its driver, so that planning needs no heavy library.

What does not belong here: which devices Keras's backend has found (registry.lineage).
"""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache

from schemas.training import Training

BFLOAT16 = 8.0  # the first compute capability of NVIDIA's with matrix units for it: Ampere, 2020
PATIENCE = 20  # seconds; a driver that starts up takes some


def precision(training: Training) -> str:
    """float32 or bfloat16: that of the YAML, where auto is bfloat16 if every GPU of the machine is fast in it."""
    if training.precision != "auto":
        return training.precision
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = () if hidden in ("", "-1") else _capabilities(os.environ.get("PATH"))
    return "bfloat16" if found and min(found) >= BFLOAT16 else "float32"


@lru_cache(maxsize=1)
def _capabilities(path: str | None) -> tuple[float, ...]:
    """The compute capability of each NVIDIA GPU; none without one. path: where the driver's program is looked for."""
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=True,
        ).stdout  # fmt: skip
        return tuple(float(line) for line in told.split())
    except (OSError, subprocess.SubprocessError, ValueError):  # no GPU, no driver, or one that answers otherwise
        return ()
