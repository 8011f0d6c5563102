"""Examines the rows of a landed batch: each file is read, hashed, held against the listing and decoded.

The result is one Row for each row that arrived and was not known when it landed. Large batches are
examined by child processes. What does not belong here: whether an examined row is
accepted (acceptance), and what a good example is (the workload).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from leptonflow.core import capacity
from leptonflow.core.child_processes import Answer, Pool, Task
from leptonflow.core.hashing import canonical, sha256
from leptonflow.data.ingest import array_files, example_groups, layouts
from leptonflow.data.ingest.folder_walk import Refusal, measure, read_file, resolve
from leptonflow.data.ingest.label_columns import of_pipeline
from leptonflow.data.ingest.layouts import Batch, Item
from leptonflow.data.validation import landed_tables
from leptonflow.data.validation.examined_rows import Looked, Row, example_row, row_number, source_row
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Examined, Workload
from schemas.config import WORKLOADS, Pipeline
from schemas.errors import NotFound
from schemas.workloads import SECTIONS

MANY = 400  # files from which child processes pay, where none runs yet
SOME = 100  # ... and where they do
CHUNK = 64  # files of one task: some ten milliseconds of work
CHUNK_BYTES = 16 << 20  # encoded bytes of one task

Progress = Callable[[str, int, int], None]


def pool(count: int | None = None) -> Pool:
    """Child processes that examine files: one per core, with Pillow and NumPy and no more. Not started yet."""
    return Pool(__name__, count)


def examine(
    store: Store,
    config: Pipeline,
    batch: Batch,
    workload: Workload,
    *,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
    workers: Pool | None = None,
) -> list[Row]:
    """Every row of a batch, in the order of the source: by name, or by row number.

    classes  the dataset's, by which `.npy` class numbers are read (else the pipeline's own)
    workers  child processes to use; without them some are started for a large batch
    """
    report = progress or (lambda stage, done, total: None)
    classes = classes or config.classes
    if batch.layout == "npy":
        return _examine_npy(store, config, batch, workload, classes, report)
    if batch.layout == "table":
        return _examine_table(store, config, batch, workload, classes, report, workers)
    looked = _look(store, config, batch, workload, batch.items, report, workers)
    roots = frozenset(batch.shape.roots)
    rows = [
        example_row(item.name, layouts.label_of(item.name, roots), item.key, None, result)
        for item, result in zip(batch.items, looked, strict=True)
    ]
    if config.group is not None:
        rows = [row.grouped(example_groups.of_name(config.group, row.source, row.label, roots)) for row in rows]
    if batch.shape.split:
        for row in rows:
            if row.facts is not None and (part := layouts.split_of(row.source, roots)) is not None:
                row.facts["split"] = part
    rows += [source_row(row, numbered=False) for row in batch.refused]
    return sorted(rows, key=lambda row: (row.source, row.key or ""))


# --- files -------------------------------------------------------------------------------------------


def _look(
    store: Store,
    config: Pipeline,
    batch: Batch,
    workload: Workload,
    items: Sequence[Item],
    report: Progress,
    workers: Pool | None,
) -> list[Looked]:
    """Each file examined, in the order given, in this process or in others."""
    _check_batch(config, workload, len(items))
    tasks = _tasks(store, config, batch, workload, items)
    alone = store.uri.startswith("memory://") or workload.name not in WORKLOADS
    enough = len(items) >= (SOME if workers is not None and workers.started else MANY)
    report("examining", 0, len(items))
    if alone or not enough:
        answers: Iterator[Answer] = (_perform(store, workload, task) for task in tasks)
    elif workers is None:
        with pool() as own:
            return _gather(own.map(tasks), len(items), report)
    else:
        answers = workers.map(tasks)
    return _gather(answers, len(items), report)


def _gather(answers: Iterator[Answer], total: int, report: Progress) -> list[Looked]:
    done: list[Looked] = []
    for rows, raw in answers:
        done += _unpack(rows, raw)
        report("examining", len(done), total)
    return done


def _tasks(store: Store, config: Pipeline, batch: Batch, workload: Workload, items: Sequence[Item]) -> list[Task]:
    size = max(1, min(CHUNK, CHUNK_BYTES // workload.codec.bytes(config.input)))
    own = json.loads(canonical(config.input))
    common = {"store": store.uri, "workload": workload.name, "input": own, "prefix": batch.prefix}
    return [
        {**common, "files": [(item.key, item.sha256) for item in items[start : start + size]]}
        for start in range(0, len(items), size)
    ]


def _check_batch(config: Pipeline, workload: Workload, examples: int) -> None:
    capacity.check_batch(workload.codec.bytes(config.input), workload.told(config.input).how, examples)


def warm() -> None:
    """Import, before the first task, what every task needs: a byte that is no example asks for all of it."""
    import numpy  # noqa: F401

    catalog.load(WORKLOADS[0]).examine(b"-", (2, 2, 1))


def perform(task: Task) -> Answer:
    """A task in a child process: the store by its URI, the workload by its name."""
    return _perform(_store(task["store"]), catalog.load(task["workload"]), task)


@lru_cache(maxsize=1)
def _store(uri: str) -> Store:
    return open_store(uri)


def _perform(store: Store, workload: Workload, task: Task) -> Answer:
    """Rows of [sha256, rule, reason, id, facts, note, encoded size], and all encoded bytes in a row."""
    own = SECTIONS[workload.name].input.validate_python(task["input"]) if workload.name in SECTIONS else task["input"]
    rows: list[Any] = []
    raw: list[bytes] = []
    for (_, expected), data in zip(task["files"], _read(store, task), strict=True):
        if isinstance(data, Refusal):
            rows.append([None, data.rule, data.reason, None, None, None, 0])
            continue
        digits = sha256(data)
        changed = _changed(digits, expected)
        if changed is not None:
            rows.append([digits, changed.rule, changed.reason, None, None, None, 0])
            continue
        found = workload.examine(data, own)
        encoded = found.encoded or b""
        rows.append([digits, found.rule, found.reason, found.id, found.facts, found.note, len(encoded)])
        raw.append(encoded)
    return rows, b"".join(raw)


def _unpack(rows: list[Any], raw: bytes) -> Iterator[Looked]:
    start = 0
    for digits, rule, reason, identity, facts, note, size in rows:
        encoded = raw[start : start + size] if size else None
        start += size
        yield digits, Examined(rule, reason, identity, facts, encoded, note)


def _read(store: Store, task: Task) -> Iterator[bytes | Refusal]:
    """The bytes of a task's files, in order. Those that are not what was landed are read once more."""
    for file, data in zip(task["files"], _read_once(store, task), strict=True):
        wrong = isinstance(data, bytes) and file[1] is not None and sha256(data) != file[1]
        yield next(_read_once(store, {**task, "files": [file]})) if wrong else data


def _read_once(store: Store, task: Task) -> Iterator[bytes | Refusal]:
    """As they are read now; on a directory store no link out of the batch is opened."""
    keys = [key for key, _ in task["files"]]
    folder = store.path(task["prefix"])
    if folder is not None:
        root = os.path.realpath(folder)
        yield from (_read_local(root, key) for key in keys)
        return
    wanted = [f"{task['prefix']}/{key}" for key in keys]
    got: list[bytes | Refusal] = []
    try:
        for data in store.get_many(wanted):
            got.append(data)
    except NotFound:  # one of them is gone: the others still count
        got += [_get(store, key) for key in wanted[len(got) :]]
    yield from got


def _get(store: Store, key: str) -> bytes | Refusal:
    try:
        return store.get(key)
    except NotFound:
        return Refusal("missing-file", "it was landed and is no longer there")


def _read_local(root: str, key: str) -> bytes | Refusal:
    folder, _, name = key.rpartition("/")
    inside = _inside(root, folder)
    if inside is None:
        return Refusal("path-escape", "its folder lies outside the batch")
    data = read_file(f"{inside}/{name}")
    if isinstance(data, Refusal) and data.rule == "path-escape":  # a link: it may lead to another file of the batch
        real = resolve(root, key)
        return real if isinstance(real, Refusal) else read_file(real)
    return data


@lru_cache(maxsize=4096)
def _inside(root: str, folder: str) -> str | None:
    real = os.path.realpath(f"{root}/{folder}") if folder else root
    return real if real == root or real.startswith(root + "/") else None


# --- .npy pairs --------------------------------------------------------------------------------------


def _examine_npy(
    store: Store,
    config: Pipeline,
    batch: Batch,
    workload: Workload,
    classes: Sequence[str] | None,
    report: Progress,
) -> list[Row]:
    refused = [source_row(row, numbered=True) for row in batch.refused if batch.listing is not None]
    named = {item.name: item for item in batch.items}
    rows: list[Row] = []
    for one, other in batch.shape.pairs:
        data, labels = named.get(one), named.get(other)
        if data is not None and labels is not None:
            for name, pair in _pairs(store, batch, data, labels, classes):
                rows += _array_rows(name, data.key, pair, config, workload, report)
    # Nothing was landed where all of it was known, or quarantined before.
    return rows or sorted(refused, key=row_number)


def _pairs(
    store: Store, batch: Batch, data: Item, labels: Item, classes: Sequence[str] | None
) -> Iterator[tuple[str, array_files.Pair]]:
    """(what its rows are called, a pair of arrays): of two files, or of an archive, which stands for both."""
    values = _array(store, batch, data)
    if isinstance(values, Refusal):
        yield data.name, array_files.Pair(None, [None], [(values.rule, values.reason)], whole=True)
        return
    numbers = None if labels is data else _array(store, batch, labels)
    if isinstance(numbers, Refusal):
        yield data.name, array_files.refused(values, numbers.rule, f"{labels.name}: {numbers.reason}")
        return
    yield from array_files.read_each(data.name, values, numbers, classes)


def _array_rows(
    name: str, key: str, pair: array_files.Pair, config: Pipeline, workload: Workload, report: Progress
) -> Iterator[Row]:
    total = len(pair)
    _check_batch(config, workload, total)
    for number in range(total):
        rule, label = pair.rules[number], pair.labels[number]
        source = name if pair.whole else f"{name}[{number}]"
        at = None if pair.whole else number
        if pair.values is None:
            assert rule is not None
            yield Row(source, label, key, at, None, *rule)
            continue
        content = pair.row(number)
        digits = array_files.row_sha256(content)
        assert workload.examine_array is not None, "the workload takes no arrays"
        found = Examined(*rule) if rule else workload.examine_array(content, config.input, pair.scale)
        if pair.scale.note is not None and found.rule is None:
            found = found._replace(note=pair.scale.note)
        row = example_row(source, label, key, at, (digits, found))
        group = config.group
        yield row if group is None else row.grouped(example_groups.of_row(group, None, number, None, label))
        if number % CHUNK == CHUNK - 1 or number == total - 1:
            report("examining", number + 1, total)


def _array(store: Store, batch: Batch, item: Item) -> array_files.File | Refusal:
    """A file of arrays, held against its listing: its path on a directory store (to be mapped), else its bytes."""
    folder = store.path(batch.prefix)
    if folder is None:
        data = next(_read(store, {"prefix": batch.prefix, "files": [(item.key, item.sha256)]}))
        return _spoiled(data, item) or data
    real = resolve(os.path.realpath(folder), item.key)
    if isinstance(real, Refusal):
        return real
    measured = measure(real)
    if isinstance(measured, Refusal):
        return measured
    return _changed(measured[1], item.sha256) or real


def _spoiled(data: bytes | Refusal, item: Item) -> Refusal | None:
    """Why a landed file's bytes are not used, if they are not."""
    return data if isinstance(data, Refusal) else _changed(sha256(data), item.sha256)


def _changed(digits: str, expected: str | None) -> Refusal | None:
    if expected is None or digits == expected:
        return None
    return Refusal("changed-after-landing", f"its sha256 is {digits[:12]}..., and {expected[:12]}... was landed")


# --- tables ------------------------------------------------------------------------------------------


def _examine_table(
    store: Store,
    config: Pipeline,
    batch: Batch,
    workload: Workload,
    classes: Sequence[str] | None,
    report: Progress,
    workers: Pool | None,
) -> list[Row]:
    ours = batch.listing is not None
    refused = [source_row(row, numbered=True) for row in batch.refused if ours]
    named = {item.name: item for item in batch.items}
    table = named.get(batch.shape.table or "")
    if table is None:  # each of its rows was known, or refused at the source
        return sorted(refused, key=row_number)
    numbers = batch.listing.rows if batch.listing is not None else None
    data = next(_read(store, {"prefix": batch.prefix, "files": [(table.key, table.sha256)]}))
    spoiled = _spoiled(data, table)
    if spoiled is not None or isinstance(data, Refusal):
        rule = (spoiled.rule, spoiled.reason) if spoiled is not None else ("missing-file", "")
        rows = [landed_tables.refused(table, number, None, rule) for number in numbers or ()]
        return sorted((rows or [Row(table.name, None, table.key, None, None, *rule)]) + refused, key=row_number)

    def look(items: Sequence[Item]) -> list[Looked]:
        return _look(store, config, batch, workload, items, report, workers)

    columns = of_pipeline(workload, config.input)
    rows = landed_tables.rows(
        batch, table, data, classes, look, lambda cell: workload.examine(cell, config.input), columns,
        config.group,
    )  # fmt: skip
    return sorted([*rows, *refused], key=row_number)
