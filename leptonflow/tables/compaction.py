"""Compaction: many small files of a table are written again as a few, so that SQL stays quick as runs add up.

The rows stay what they were. The new file is written first, under the digest of its bytes; then one record of the
table's commit log says which files it replaces. Nothing is deleted: a reader that holds an older record reads the older
files, and a store whose `compactions/` is lost has lost no row. What does not belong here: which files a reader takes
(`table_sources`), and what is in them (`tables`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from leptonflow.core import store_keys
from leptonflow.core.concurrency import in_order
from leptonflow.core.hashing import canonical, sha256
from leptonflow.storage import commit_log
from leptonflow.storage.objects import place, steady
from leptonflow.storage.store import Store
from leptonflow.tables import table_files, table_sources
from leptonflow.tables.table_sources import Source
from schemas.errors import LeptonflowError, Overtaken, line_of

if TYPE_CHECKING:
    import pyarrow as pa

MOST_LOOSE = 32  # files of a table that no compaction has replaced; one more, and the next run compacts it
LARGE = 2 * 2**20  # bytes: to open a file of this size costs little beside reading it, so it stays
MOST_AT_ONCE = 16 * 2**20  # bytes of files that become one: what a compaction holds in memory, uncompressed
GROWTH = 2  # an older compaction is merged again while it stands for no more than so many times the files that join it


def after_run(store: Store) -> None:
    """Compact every table that has grown enough. A failure is a warning: no row depends on it."""
    import pyarrow as pa

    for table in table_sources.with_files():
        try:
            compact(store, table)
        except (LeptonflowError, OSError, MemoryError, pa.ArrowException) as error:
            message = "the table %s was not compacted, and keeps its rows: %s"
            logging.getLogger(__name__).warning(message, table, line_of(error))


def compact(store: Store, table: str, most: int = MOST_LOOSE) -> bool:
    """Write the table's small files again as a few, if more than `most` are loose; whether this call committed that.

    Safe beside writers, readers and other compactions: the record is committed against the log that was read, and
    whoever comes second has changed nothing. Safe to repeat after a kill: the same files give the same bytes and key.
    Raises Damaged, naming the file, where one cannot be read.
    """
    if len(_small(table_sources.sources(store, table))) <= most:  # without reading the whole log
        return False
    history = commit_log.read(store, store_keys.compaction_log(table))
    found = table_sources.sources(store, table, history)
    loose = _small(found)
    if len(loose) <= most:
        return False  # somebody has just done it
    chosen = _chosen(loose, found.compacted)
    written = [_write(store, table, group) for group in _groups(chosen)]
    body = {
        "table": table,
        "made": [{"key": made.key, "bytes": made.bytes, "replaces": list(made.replaces)} for made in written],
        "keeps": [{"key": kept.key, "record": kept.record} for kept in found.compacted if kept not in chosen],
    }
    decided = sha256(canonical(sorted(source.key for source in chosen)))
    try:
        commit_log.commit(
            store, history, id=decided, kind="compaction", body=body, who="leptonflow",
            why=f"{len(loose)} loose files",
        )  # fmt: skip
    except Overtaken:
        return False  # another compaction was first, and a reader takes its files alone
    return True


def _small(found: table_sources.Sources) -> list[Source]:
    return [source for source in found.loose if source.bytes < LARGE]


def _chosen(loose: Sequence[Source], compacted: Sequence[Source]) -> list[Source]:
    """The loose files, and those older compactions that are not much larger than what joins them.

    So a store has few files (their sizes grow geometrically), and a row is written again only a few times: the tiers of
    a log-structured merge tree, O'Neil et al. 1996. What would not fit into one file with the others stays as it is.
    """
    chosen = list(loose)
    count, size = len(loose), sum(source.bytes for source in loose)
    for source in sorted(compacted, key=lambda source: len(source.replaces)):
        if len(source.replaces) > GROWTH * count:
            break
        if size + source.bytes <= MOST_AT_ONCE:
            chosen.append(source)
            count += len(source.replaces)
            size += source.bytes
    return chosen


def _groups(sources: Sequence[Source]) -> list[list[Source]]:
    """`sources` in order, cut so that no group is much larger than MOST_AT_ONCE."""
    groups: list[list[Source]] = [[]]
    size = 0
    for source in sources:
        if groups[-1] and size + source.bytes > MOST_AT_ONCE:
            groups.append([])
            size = 0
        groups[-1].append(source)
        size += source.bytes
    return groups


def _write(store: Store, table: str, sources: Sequence[Source]) -> Source:
    """The rows of `sources` as one file under its digest, by pipeline, else in the order of the files."""
    import pyarrow as pa

    keys = [source.key for source in sources]
    # Their digests lie in the manifests of runs: what is read wrong here would stay wrong.
    read = in_order(lambda key: steady(store, key), keys)
    found: list[pa.Table] = [table_files.decode(data, key) for key, data in zip(keys, read, strict=True)]
    # Permissive: a column or a wider type that another release wrote is kept. The sort is stable.
    rows = pa.concat_tables(found, promote_options="permissive").sort_by("pipeline")
    data = table_files.encode(rows)
    digest = sha256(data)
    key = store_keys.compacted_key(table, digest)
    place(store, key, data, f"Remove it: the rows lie in {store_keys.table_folder(table)} too")
    replaces = sorted(key for source in sources for key in source.replaces or (source.key,))
    return Source(key=key, bytes=len(data), replaces=tuple(replaces))
