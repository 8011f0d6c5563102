"""What every test of bad input starts from: a fresh store, no configuration, a mild and a strict pipeline.

Great Expectations starts once for all of them (seconds).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from leptonflow.data.dataset import admission
from tests.e2e.bad_input.sources import CLASSES
from tests.e2e.helpers import pipeline


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, admission_tools: admission.Tools) -> Path:
    """A fresh directory store, and no configuration from outside."""
    for name in ("LEPTONFLOW_STORE", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    """A pipeline that refuses no batch."""
    return pipeline(tmp_path / "lenient", classes=CLASSES, quarantine={"limit": 1.0})


@pytest.fixture
def strict(tmp_path: Path) -> Path:
    """A pipeline with the default limit of 0.2."""
    return pipeline(tmp_path / "strict", classes=CLASSES)
