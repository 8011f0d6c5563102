"""What a person wants scored, one example after another: its name, and how a process reads it.

Files, folders and tables on this machine, objects and tables under an S3 prefix. Nothing is opened here but tables.
What does not belong here: reading an example (chunk_scores), the rows of a table (scored_tables).
"""

from __future__ import annotations

import base64
import os
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from leptonflow.batch_scoring import scored_tables
from leptonflow.data.ingest import folder_walk, label_tables, layouts
from leptonflow.data.ingest.folder_walk import Refusal
from leptonflow.data.ingest.label_columns import Columns
from leptonflow.data.ingest.layouts import Layout
from leptonflow.data.ingest.sources import Source
from leptonflow.data.ingest.table_paths import Paths
from leptonflow.storage.address import open_store
from leptonflow.workloads.base import Workload
from schemas.errors import UsageError

FILE, OBJECT, BYTES, FAULT = "file", "object", "bytes", "fault"
S3 = "s3://"


class ExampleRef(NamedTuple):
    """An example of a source: its name, and how a process reads it.

    kind   file (value: its path), object (value: its key on the store `of`), bytes (value: the example itself, base64),
           fault (value: why it cannot be read)
    state  what tells a change of a file or an object: its size, and of a file the time
    """

    name: str
    kind: str
    value: str
    of: str = ""
    state: tuple[int, ...] = ()


def examples(given: Sequence[str], workload: Workload, columns: Columns, root: Path | None) -> Iterator[ExampleRef]:
    """Every example of the sources, in the order given; of a folder or a prefix by name, of a table by row.

    columns.cells is None where the rows of tables name files. Raises UsageError where there is nothing to score.
    """
    for each in given:
        count = 0
        for found in _objects(each, workload, columns) if each.startswith(S3) else _here(each, workload, columns, root):
            count += 1
            yield found
        if not count:
            raise UsageError("the source holds no example", expected=f"{workload.noun}, or a table", received=each)


def _here(given: str, workload: Workload, columns: Columns, root: Path | None) -> Iterator[ExampleRef]:
    path = Path(given)
    if path.is_dir():
        for name, found in folder_walk.ordered(given):
            if isinstance(found, Refusal):
                yield _fault(str(path / name), (found.rule, found.reason))
            elif not layouts.is_litter(name, workload.suffixes):
                yield _file(str(path / name), found.real)
    elif path.is_file() and path.suffix.lower() in layouts.TABLES:
        yield from _table(path, given, workload, columns, root)
    elif path.is_file():
        yield _file(given, given)
    else:
        raise UsageError(
            "the source cannot be scored", expected="a file, a folder, a table or an s3:// prefix",
            received=f"{given} ({'another kind of file' if os.path.lexists(path) else 'there is nothing'})",
            hint="Check the path",
        )  # fmt: skip


def _table(path: Path, given: str, workload: Workload, columns: Columns, root: Path | None) -> Iterator[ExampleRef]:
    folder = os.path.realpath(path.parent if root is None else root)
    source = Source(folder, os.path.abspath(path.parent if root is None else root), _layout(path, workload, root))
    paths = Paths(source, ())
    for number, cell in enumerate(scored_tables.rows(path, columns)):
        name = f"{given}[{number}]"
        if isinstance(cell, str):
            meant, rule = paths.find(cell)
            place = paths.places.pop(meant) if meant is not None else None
            if isinstance(place, str):
                yield _file(name, place)
            else:
                yield _fault(name, rule or (place.rule, place.reason) if place else rule or scored_tables.NO_EXAMPLE)
        else:
            yield _fault(name, cell) if isinstance(cell, tuple) else _bytes(name, cell)


def _layout(path: Path, workload: Workload, root: Path | None) -> Layout:
    """As of a source with that table. One whose paths are relative to another folder is named absolutely."""
    table = path.name if root is None else os.path.realpath(path)
    return Layout("table", table=table, suffixes=workload.suffixes)


def _objects(uri: str, workload: Workload, columns: Columns) -> Iterator[ExampleRef]:
    """The objects under a prefix; or the rows of the table that the URI names, whose paths are relative to it."""
    suffix = posixpath.splitext(uri)[1].lower()
    if suffix in layouts.TABLES:
        yield from _object_table(uri, suffix, columns)
        return
    for key, size in open_store(uri).list(""):
        if not layouts.is_hidden(key) and not layouts.is_litter(key, workload.suffixes):
            yield ExampleRef(f"{uri.rstrip('/')}/{key}", OBJECT, key, uri, (size,))


def _object_table(uri: str, suffix: str, columns: Columns) -> Iterator[ExampleRef]:
    folder, key = posixpath.split(uri)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"table{suffix}"
        path.write_bytes(open_store(folder).get(key))
        for number, cell in enumerate(scored_tables.rows(path, columns)):
            name = f"{uri}[{number}]"
            if isinstance(cell, str):
                meant, rule = label_tables.name_of(cell)
                yield _fault(name, rule) if rule or meant is None else ExampleRef(name, OBJECT, meant, folder)
            else:
                yield _fault(name, cell) if isinstance(cell, tuple) else _bytes(name, cell)


def _file(name: str, path: str) -> ExampleRef:
    try:
        found = os.stat(path)
    except OSError:  # told as it is read
        return ExampleRef(name, FILE, path)
    return ExampleRef(name, FILE, path, "", (found.st_size, found.st_mtime_ns))


def _bytes(name: str, data: bytes) -> ExampleRef:
    return ExampleRef(name, BYTES, base64.b64encode(data).decode())


def _fault(name: str, rule: tuple[str, str] | None) -> ExampleRef:
    return ExampleRef(name, FAULT, ": ".join(rule or scored_tables.NO_EXAMPLE))
