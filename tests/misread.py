"""Readings that are wrong: what a server that ends a body early, or a bit that flips on its way, does to a reader."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from leptonflow.storage.store import Store

WRONG = ("short", "flipped")


def misread(store: Store, patch: pytest.MonkeyPatch, how: str, times: int = 1) -> Mapping[str, int]:
    """The first readings of every key are wrong; how often each was read."""
    real = store.get
    readings: dict[str, int] = {}

    def get(key: str) -> bytes:
        data = real(key)
        readings[key] = readings.get(key, 0) + 1
        if readings[key] > times or not data:
            return data
        middle = len(data) // 2
        return data[:middle] if how == "short" else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    patch.setattr(store, "get", get)
    return readings
