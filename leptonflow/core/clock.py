"""The time as everything records it: UTC, ISO 8601, microseconds, Z."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Such as 2026-11-24T15:52:08.884093Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
