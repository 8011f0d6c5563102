"""A CSV of labels: the columns request_id and label, and who gave each. What is done with them belongs to `labels`."""

from __future__ import annotations

import csv
from pathlib import Path

from leptonflow.monitoring.labels import Given
from schemas.errors import UsageError

COLUMNS = "the columns request_id and label, and if you like who, named in the first line"


def read(path: Path) -> list[Given]:
    """The labels of a CSV (UTF-8), in its order. Raises UsageError where it cannot be read as one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"request_id", "label"} <= set(rows.fieldnames or ()):
                raise _wrong(path, f"the columns {', '.join(rows.fieldnames or ()) or '(none)'}")
            return [Given((row["request_id"] or "").strip(), row["label"] or "", _who(row)) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _wrong(path, error.strerror or "no such file" if isinstance(error, OSError) else str(error)) from None


def _who(row: dict[str, str]) -> str | None:
    return (row.get("who") or "").strip() or None


def _wrong(path: Path, received: str) -> UsageError:
    return UsageError(f"{path} is not a file of labels", expected=f"a CSV with {COLUMNS}", received=received)
