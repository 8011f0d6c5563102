"""Fixtures of the tests of landing and examining: a folder to fill, and a store to land it in."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture(params=["directory", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store in a folder and one in memory: the two that read landing/ in different ways."""
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4().hex}")
    return open_store((tmp_path / "store").as_uri())
