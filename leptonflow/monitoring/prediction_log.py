"""The prediction log: what was served, in Parquet files on the store. A server adds rows, one thread writes them.

A row is lost rather than an answer delayed: rows wait in memory up to a bound, what is beyond it is counted as dropped.
While the store cannot be written, the rows at hand are tried again. Reading the files belongs to `served_log`.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from leptonflow.core import store_keys
from leptonflow.storage import store_identity
from leptonflow.storage.store import Store
from leptonflow.tables import table_files
from schemas import tables
from schemas.errors import AlreadyExists, line_of
from schemas.served import REQUEST_ID, Served, date_of, requested_at

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 5_000  # a file is written when so many wait,
SECONDS = 30.0  # or when the oldest has waited so long
MOST_ROWS = 50_000  # in memory, those that are being written among them
MOST_BYTES = 64 * 2**20
ROW_BYTES = 1_000  # of a row besides its arrays, about
_as_json = json.JSONEncoder(sort_keys=True).encode


class PredictionLog:
    """Rows for the prediction log of every pipeline of a store, written by a thread of its own until `close`.

    dropped  rows that were not written and never will be
    written  rows that lie on the store
    problem  why rows could not be written at the last attempt, in one line; None: it went well
    """

    def __init__(
        self,
        store: Store,
        *,
        rows: int = ROWS,
        seconds: float = SECONDS,
        most_rows: int = MOST_ROWS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._store, self._rows, self._seconds = store, rows, seconds
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._changed = threading.Condition()
        self._waiting: list[Served] = []
        self._writing: list[tuple[str, list[Served]]] = []  # files by their keys, tried again until they are there
        self._held, self._bytes = 0, 0  # of both
        self._closing = False
        self.dropped, self.written = 0, 0
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._write, name="prediction-log", daemon=True)
        self._thread.start()

    def add(self, row: Served) -> None:
        """Keep the row for the next file. Never waits for the store, never raises; a full buffer drops the row."""
        size = _bytes(row)
        with self._changed:
            full = self._held >= self._most_rows or self._bytes + size > self._most_bytes
            if full or self._closing or not REQUEST_ID.fullmatch(row.request_id):
                self.dropped += 1
                return
            self._waiting.append(row)
            self._held += 1
            self._bytes += size
            if len(self._waiting) in (1, self._rows):
                self._changed.notify()

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return self._held

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits, for `timeout` seconds at most; what is not written then counts as dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        with self._changed:
            self.dropped += self._held
            self._held = self._bytes = 0

    def _write(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
        _table([])  # what this imports takes a second: now, and not beside more requests
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._writing or self._closing)
                self._changed.wait_for(lambda: len(self._waiting) >= self._rows or self._closing, self._seconds)
                rows, self._waiting, closing = self._waiting, [], self._closing
            self._writing += _files(rows)
            self._try()
            if closing:
                return

    def _try(self) -> None:
        """Write the files at hand, in order, until one fails: that and the others are tried again."""
        while self._writing:
            key, rows = self._writing[0]
            try:
                good = self._create(key, rows)
            except Exception as error:  # noqa: BLE001 - a thread that ends would lose every row from now on
                problem = line_of(error)
                if self.problem is None:
                    words = "the prediction log cannot be written; its rows wait, and the server tries again: %s"
                    logging.getLogger(__name__).warning(words, problem)
                self.problem = problem
                return
            self.problem = None
            self._writing.pop(0)
            with self._changed:
                if self._held:  # else `close` has given them up, and counted them
                    self.written += good
                    self.dropped += len(rows) - good
                    self._held -= len(rows)
                    self._bytes -= sum(map(_bytes, rows))

    def _create(self, key: str, rows: Sequence[Served]) -> int:
        """Write one file; how many of its rows could be written at all."""
        try:
            table = _table(rows)
        except Exception:  # noqa: BLE001 - whatever a row's values raise, it is dropped alone
            rows = [row for row in rows if _fits(row)]
            table = _table(rows)
        if rows:
            store_identity.require(self._store)  # a folder that is not mounted would take them, and lose them
            with suppress(AlreadyExists):  # the name is random: it is this file, and the reply was lost
                self._store.create(key, table_files.encode(table))
        return len(rows)


def _files(rows: Iterable[Served]) -> list[tuple[str, list[Served]]]:
    """(key, rows) of the files to write: one for each pipeline, date and table."""
    found: dict[tuple[str, str, str], list[Served]] = {}
    for row in rows:
        table = store_keys.SHADOW if row.shadow else store_keys.SERVED
        found.setdefault((row.pipeline, date_of(requested_at(row.request_id)), table), []).append(row)
    return [(store_keys.served_key(name, date, _name(of), table), of) for (name, date, table), of in found.items()]


def _name(rows: Sequence[Served]) -> str:
    """The times of the first and last request, by which the file of a request is found, and a name of its own."""
    times = [requested_at(row.request_id) for row in rows]
    return f"{min(times):013d}-{max(times):013d}-{secrets.token_hex(8)}"


def _bytes(row: Served) -> int:
    arrays = (row.outputs, row.features)
    return ROW_BYTES + len(row.inputs or b"") + sum(each.nbytes for each in arrays if each is not None)


def _table(rows: Sequence[Served]) -> pa.Table:
    """The rows of the table `served`, a column at a time: while this runs, requests wait for the interpreter."""
    import numpy as np
    import pyarrow as pa

    def column(name: str) -> list[Any]:
        values = [getattr(row, name) for row in rows]
        if name in ("outputs", "features"):
            return [None if each is None else np.asarray(each, np.float32) for each in values]
        if name in ("metadata", "input_statistics"):
            return [None if each is None else _as_json(dict(each)) for each in values]
        return values

    schema = tables.schema("served")
    return pa.Table.from_arrays([pa.array(column(each.name), each.type) for each in schema], schema=schema)


def _fits(row: Served) -> bool:
    try:
        _table([row])
    except Exception:  # noqa: BLE001 - as above
        return False
    return True
