"""A quick look at a source that nobody has landed yet: its classes, and some of its examples' facts.

For `init`, which writes a YAML that fits. Nothing is judged and nothing is written here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leptonflow import arrays, label_tables, layouts, workloads
from leptonflow.walking import read_file, resolve, walk
from schemas.config import Pipeline
from schemas.errors import UsageError


def look(source: Path, config: Pipeline, most: int) -> tuple[list[str], list[dict[str, Any]]]:
    """(classes, the facts of at most `most` examples, spread over the source). Raises UsageError."""
    if source.is_file() and source.name.lower().endswith(layouts.TABLES):
        return _table(str(source.parent), source.name, config, most)
    if not source.is_dir():
        raise UsageError(
            "this source cannot be looked at",
            expected="a folder with a folder per class, a folder with a .npy pair, or a .csv or .parquet table",
            received=str(source),
        )
    found = walk(str(source))
    shape = layouts.layout([file.name for file in found.files])
    if shape.kind == "table" and shape.table:
        return _table(str(source), shape.table, config, most)
    if shape.kind == "npy" and shape.data and shape.labels:
        return _arrays(source / shape.data, source / shape.labels, config, most)
    classes = {label for file in found.files if (label := layouts.label_of(file.name)) is not None}
    return sorted(classes), _facts([file.real for file in found.files], config, most)


def _table(root: str, name: str, config: Pipeline, most: int) -> tuple[list[str], list[dict[str, Any]]]:
    table = label_tables.read(name, Path(root, name).read_bytes())
    paths = [resolve(os.path.realpath(root), path) for path in table.paths if path]
    return sorted({label for label in table.labels if label}), _facts(
        [path for path in paths if isinstance(path, str)], config, most
    )


def _arrays(data: Path, labels: Path, config: Pipeline, most: int) -> tuple[list[str], list[dict[str, Any]]]:
    pair = arrays.read(str(data), str(labels), None)
    examine = workloads.load(config.workload).examine_array
    numbers = [int(label) for label in pair.labels if label and label.isdigit()]
    good = [n for n, rule in enumerate(pair.rules) if rule is None]
    looked = [examine(pair.row(n), config.input, pair.scale) for n in _spread(good, most)]
    return [str(n) for n in range(max(numbers, default=-1) + 1)], [e.facts for e in looked if e.facts]


def _facts(files: Sequence[str], config: Pipeline, most: int) -> list[dict[str, Any]]:
    examine = workloads.load(config.workload).examine
    read = [read_file(file) for file in _spread(files, most)]
    looked = [examine(data, config.input) for data in read if isinstance(data, bytes)]
    return [e.facts for e in looked if e.facts]


def _spread(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most `most` of them, from all over: the first files of a folder are often alike."""
    return items[:: max(1, len(items) // most)][:most]
