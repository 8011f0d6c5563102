"""The time as everything records it: UTC, ISO 8601, microseconds, Z."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def now() -> str:
    """Such as 2026-11-24T15:52:08.884093Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def after(at: str, seconds: float) -> str:
    """The time that many seconds after `at`, as `now` gives it; the last that there is where it is beyond all years."""
    try:
        found = datetime.fromisoformat(at) + timedelta(seconds=seconds)
    except OverflowError:
        found = datetime.max.replace(tzinfo=UTC)
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
