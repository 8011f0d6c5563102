"""Preprocessed examples as Parquet parts, the snapshots they make up, and how a snapshot is split.

A part is immutable and lies under the digest of its bytes. Pixels are train-ready: uint8, height x
width x channels, as fixed-size binary. What does not belong here: which examples are accepted
(admission), and what is learned from them (training).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import capacity, parquet
from leptonflow.core.hashing import canonical, sha256
from leptonflow.layouts import shown
from leptonflow.storage.commit_log import Entry
from leptonflow.storage.objects import place, recorded
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.records import ChangesRef, PartRef, SnapshotRef, Split
from schemas.text import nfc

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

IDENTITY = ("id", "sha256", "label", "batch")
RELABELLED, RETRACTED = "relabelled", "retracted"  # kinds of records that change accepted examples
SPLIT_RULE = 1  # of `in_holdout`: another rule needs another number, since versions trained by both are compared


class Accepted(NamedTuple):
    """One accepted example, as it goes into a part. `encoded` are H*W*C bytes."""

    id: str
    sha256: str
    label: str
    source: str
    key: str | None
    row: int | None
    facts: dict[str, Any]
    encoded: bytes


@dataclass(frozen=True)
class Examples:
    """N examples, sorted by id. labels: class numbers in the snapshot's order. pixels: uint8 N x H x W x C."""

    ids: list[str]
    labels: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    batches: list[str]
    sources: list[str]


@dataclass(frozen=True)
class EncodedPart:
    """A part's bytes, not yet on a store."""

    data: bytes
    sha256: str
    rows: int


def facts_columns(facts: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
    """The facts of N examples, one array of N for each fact, in the order in which they first occur."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in facts for name in row)
    return {name: pa.array([row.get(name) for row in facts]) for name in names}


def encode_part(
    batch: str, examples: Sequence[Accepted], facts: Mapping[str, pa.Array] | None = None
) -> EncodedPart | None:
    """The Parquet of some examples; None where there is no example. The same examples give the same bytes.

    facts  theirs as `facts_columns` gives them, where they are at hand
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not examples:
        return None
    facts = facts_columns([e.facts for e in examples]) if facts is None else facts
    columns = {name: pa.array([getattr(e, name) for e in examples], pa.string()) for name in ("id", "sha256", "label")}
    columns["batch"] = pa.array([batch] * len(examples), pa.string())
    columns["source"] = pa.array([e.source for e in examples], pa.string())
    columns["key"] = pa.array([shown(e.key) if e.key else None for e in examples], pa.string())
    columns["row"] = pa.array([e.row for e in examples], pa.int64())
    columns["facts"] = _struct(facts, len(examples))
    columns["pixels"] = pa.array([e.encoded for e in examples], pa.binary(len(examples[0].encoded)))
    sink = pa.BufferOutputStream()
    # A dictionary over pixels would only grow them; these columns gain from one.
    pq.write_table(
        pa.table(columns), sink, compression="zstd", use_dictionary=["label", "batch"], row_group_size=16_384
    )
    data = sink.getvalue().to_pybytes()
    return EncodedPart(data, sha256(data), len(examples))


def _struct(columns: Mapping[str, pa.Array], rows: int) -> pa.Array:
    import pyarrow as pa

    if not columns:
        return pa.array([{}] * rows, pa.struct([]))
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def create_part(store: Store, pipeline: str, batch: str, preprocessing: str, part: EncodedPart) -> PartRef:
    """Put a part where its digest says."""
    key = f"examples/{pipeline}/{part.sha256}.parquet"
    place(store, key, part.data)
    return PartRef(key=key, sha256=part.sha256, rows=part.rows, batch=batch, preprocessing=preprocessing)


def write_part(
    store: Store, pipeline: str, batch: str, preprocessing: str, examples: Sequence[Accepted]
) -> PartRef | None:
    """Write one part; None where there is no example. The same examples give the same bytes and key."""
    part = encode_part(batch, examples)
    return None if part is None else create_part(store, pipeline, batch, preprocessing, part)


def read_part(store: Store, part: PartRef, columns: Sequence[str]) -> pa.Table:
    """Some columns of a part, its bytes held against the recorded sha256. Raises Damaged."""
    return parquet.read(recorded(store, part.key, part.sha256), columns)


def read_columns(store: Store, part: PartRef, columns: Sequence[str]) -> pa.Table:
    """Some small columns of a part, held against its sha256 too; of a local file no pixels are kept in memory."""
    import pyarrow.parquet as pq

    path = store.path(part.key)
    if path is not None and path.is_file():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == part.sha256:
            return pq.ParquetFile(path).read(columns=list(columns), use_threads=False)
    return read_part(store, part, columns)  # read again, then refused


def accepted_parts(entries: Iterable[Entry]) -> list[PartRef]:
    """The parts of each accepted batch, as it was first encoded."""
    return [PartRef.model_validate(p) for entry in entries if entry.kind == "batch" for p in entry.body["parts"]]


def changes(entries: Iterable[Entry]) -> tuple[ChangesRef, ...]:
    """What the records changed about accepted examples, oldest first."""
    found = (entry.body for entry in entries if entry.kind in (RELABELLED, RETRACTED))
    return tuple(ChangesRef.model_validate(body["changes"]) for body in found)


def read_changes(store: Store, changes: Iterable[ChangesRef]) -> dict[str, str | None]:
    """Example id -> its label now, None where it was retracted; the newest record decides. Raises Damaged."""
    found: dict[str, str | None] = {}
    for change in changes:
        table = parquet.read(recorded(store, change.key, change.sha256), ("id", "label"))
        found.update(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return found


def tables(
    store: Store,
    parts: Iterable[PartRef],
    changes: Iterable[ChangesRef],
    columns: Sequence[str],
    *,
    verified: bool = False,
) -> Iterator[pa.Table]:
    """Some columns of each part, `id` among them, as the records say: newer labels, and nothing that was retracted.

    verified: the whole part is read at once, for its pixels.
    """
    import pyarrow as pa

    changed = read_changes(store, changes)
    for part in parts:
        table = (read_part if verified else read_columns)(store, part, columns)
        ids = table["id"].to_pylist() if changed else []
        touched = any(example in changed for example in ids)
        if "label" in columns:
            labels = table["label"].to_pylist()
            if touched or not all(label.isascii() for label in labels):
                if touched:
                    labels = [changed.get(example, label) for example, label in zip(ids, labels, strict=True)]
                now = pa.array([label and nfc(label) for label in labels], pa.string())  # older parts have other forms
                table = table.set_column(table.schema.get_field_index("label"), "label", now)
        if touched:
            table = table.filter(pa.array([changed.get(example, "") is not None for example in ids], pa.bool_()))
        yield table


def pairs(store: Store, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """(example id, label) of all that the dataset holds after these records."""
    found: list[tuple[str, str]] = []
    for table in tables(store, accepted_parts(entries), changes(entries), ("id", "label")):
        found += zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)
    return found


def content_digest(pairs: Iterable[tuple[str, str]], preprocessing: str) -> str:
    """The snapshot content of DESIGN section 4: sorted (example id, label) and the preprocessing digest."""
    state = hashlib.sha256()
    state.update(canonical(preprocessing))
    for example, label in sorted(pairs):
        state.update(f"\n{example} {label}".encode())
    return state.hexdigest()


def in_holdout(example: str, fraction: float) -> bool:
    """u(sha256("holdout" + id)) < fraction; u reads the first 64 bits as a number in [0, 1)."""
    value = int.from_bytes(hashlib.sha256(b"holdout" + example.encode()).digest()[:8], "big")
    return value / 2**64 < fraction


def split(store: Store, config: Pipeline, snapshot: SnapshotRef) -> Split:
    """Counts of training and holdout examples, and the sentence that says why they cannot be trained.

    Raises ConfigurationError where they do not fit into memory.
    """
    train: Counter[str] = Counter(dict.fromkeys(snapshot.classes, 0))
    holdout: Counter[str] = Counter(dict.fromkeys(snapshot.classes, 0))
    for table in tables(store, snapshot.parts, snapshot.changes, ("id", "label")):
        for example, label in zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True):
            (holdout if in_holdout(example, snapshot.holdout) else train)[label] += 1
    folds = config.training.folds
    short_of = {name: train[name] for name in snapshot.classes if train[name] < folds}
    rejected = None
    if not holdout.total():
        rejected = f"the holdout is empty: {train.total()} examples, none of which fell into {snapshot.holdout:g}"
    elif short_of:
        counts = ", ".join(f"{name}: {count}" for name, count in short_of.items())
        rejected = f"{folds} folds need at least {folds} training examples of each class; there are too few of {counts}"
        if empty := [name for name, count in short_of.items() if not count and not holdout[name]]:
            kept = ", ".join(name for name in snapshot.classes if name not in empty)
            rejected += f". There is no example of {', '.join(empty)}: `classes: [{kept}]` in the YAML goes without"
    found = Split(
        train=train.total(),
        holdout=holdout.total(),
        train_per_class=dict(train),
        holdout_per_class=dict(holdout),
        rejected=rejected,
        warnings=_remarks(store, config, snapshot),
    )
    capacity.check_training(config, found)
    return found


def _remarks(store: Store, config: Pipeline, snapshot: SnapshotRef) -> tuple[str, ...]:
    """What the workload says of these examples at this input."""
    facts = (fact for part in snapshot.parts for fact in read_columns(store, part, ("facts",))["facts"].to_pylist())
    return tuple(catalog.load(config.workload).remarks(list(facts), config.input))


def training_set(store: Store, config: Pipeline, snapshot: SnapshotRef) -> Examples:
    """The examples outside the holdout. The last one asked for is kept, since every fold needs it."""
    key = (store.uri, snapshot.content, snapshot.holdout, snapshot.classes)
    if _KEPT.get("key") != key:
        _KEPT.clear()
        _KEPT.update(
            key=key, examples=_load(store, snapshot, config.input, lambda e: not in_holdout(e, snapshot.holdout))
        )
    kept: Examples = _KEPT["examples"]
    return kept


_KEPT: dict[str, Any] = {}


def holdout_set(
    store: Store, config: Pipeline, snapshot: SnapshotRef, shape: tuple[int, int, int] | None = None
) -> Examples:
    """The holdout's examples; with `shape`, encoded for another input (a champion's own)."""
    if shape is not None and shape != config.input:
        from leptonflow import reencoding

        snapshot = reencoding.reencoded(store, config, snapshot, shape)
    return _load(store, snapshot, shape or config.input, lambda e: in_holdout(e, snapshot.holdout))


def _load(store: Store, snapshot: SnapshotRef, shape: tuple[int, int, int], keep: Callable[[str], bool]) -> Examples:
    import numpy as np
    import pyarrow as pa

    numbers = {nfc(name): n for n, name in enumerate(snapshot.classes)}
    rows: list[tuple[str, str, str, str]] = []
    blocks: list[NDArray[np.uint8]] = []
    columns = ("id", "label", "batch", "source", "pixels")
    for table in tables(store, snapshot.parts, snapshot.changes, columns, verified=True):
        table = table.filter(pa.array([keep(e) for e in table["id"].to_pylist()], pa.bool_()))
        rows += zip(*(c.to_pylist() for c in table.columns[:-1]), strict=True)
        for chunk in table["pixels"].chunks:
            width = chunk.type.byte_width
            flat = np.frombuffer(chunk.buffers()[1], np.uint8)
            blocks.append(flat[chunk.offset * width : (chunk.offset + len(chunk)) * width].reshape(-1, *shape))
    order = sorted(range(len(rows)), key=lambda i: rows[i][0])
    places = np.empty(len(rows), np.int64)  # where each row, in the order of the parts, belongs
    places[order] = np.arange(len(rows))
    pixels = np.empty((len(rows), *shape), np.uint8)
    done = 0
    while blocks:  # images are the bulk of the memory: each block goes as soon as it is copied
        block = blocks.pop(0)
        pixels[places[done : done + len(block)]] = block
        done += len(block)
    rows = [rows[i] for i in order]
    return Examples(
        ids=[row[0] for row in rows],
        labels=np.array([numbers[row[1]] for row in rows], np.int64),
        pixels=pixels,
        batches=[row[2] for row in rows],
        sources=[row[3] for row in rows],
    )


def folds(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """The fold number of each training example: stratified, shuffled with `seed`."""
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    numbers = np.zeros(len(labels), np.int64)
    splitter = StratifiedKFold(n_splits=count, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        numbers[held] = number
    return numbers
