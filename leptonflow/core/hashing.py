"""Digests of plain values and of bytes. What does not belong here: what a digest is used for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SHORT = 12


def sha256(data: bytes) -> str:
    """The sha256 of some bytes, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain).encode()


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"a digest is made of plain values, not of {type(value).__name__}")


def digest(*values: Any) -> str:
    """The sha256 of plain values (or pydantic records), as 64 hex digits."""
    return sha256(canonical(list(values)))


def short(hexadecimal: str) -> str:
    """The first 12 hex digits: what versions, run ids and snapshots are shown as."""
    return hexadecimal[:SHORT]
