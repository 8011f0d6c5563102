"""What changes accepted examples: records of newer labels and of examples that leave the dataset.

Each is one record in the snapshots log, with who, when and why; its changes lie in a Parquet part. Contents, ids and
sides of the split stay. What does not belong here: how readers apply them (dataset_contents), and who
decides on them (corrections, identities).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import store_keys
from leptonflow.core.hashing import digest, sha256, short
from leptonflow.core.person import person
from leptonflow.data.dataset import dataset_contents, dataset_state
from leptonflow.storage import commit_log
from leptonflow.storage.objects import place
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import UsageError
from schemas.records import ChangesRef

if TYPE_CHECKING:
    import pyarrow as pa


COLUMNS = ("id", "label", "batch", "source")
LEAST = 6  # hex digits of an id that name an example


class Change(NamedTuple):
    """One example, as `rows` gives it, and its label from now on; None: it leaves the dataset."""

    row: dict[str, Any]
    label: str | None


def rows(
    store: Store, history: commit_log.Log, retracted: bool = False, columns: Sequence[str] = COLUMNS
) -> list[dict[str, Any]]:
    """These columns of each example that the dataset holds; with retracted: of those that left it too.

    The label of one that left is None.
    """
    changed = dataset_contents.read_changes(store, dataset_contents.changes(history.entries))
    found = []
    for table in dataset_contents.tables(store, dataset_contents.accepted_parts(history.entries), (), columns):
        for row in table.to_pylist():
            label = changed.get(row["id"], row["label"])
            if label is not None or retracted:
                found.append({**row, "label": label})
    return found


def with_id(found: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The row whose id is, or begins with, `name`. Raises UsageError where that is too short or fits several."""
    if len(name) < LEAST:
        raise UsageError("not an example's id", expected=f"{LEAST} of its hex digits at least", received=repr(name))
    fitting = [row for row in found if row["id"].startswith(name.lower())]
    if len(fitting) > 1:
        raise UsageError("several examples have ids that begin so", expected="more digits", received=name)
    return fitting[0] if fitting else None


def write(store: Store, pipeline: str, table: pa.Table) -> ChangesRef:
    """A small table as a part that a record names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    key = store_keys.examples_key(pipeline, sha256(data))
    place(store, key, data)
    return ChangesRef(key=key, sha256=sha256(data), rows=table.num_rows)


def commit(
    store: Store, config: Pipeline, history: commit_log.Log, kind: str, changes: Sequence[Change], why: str
) -> commit_log.Log:
    """One attempt to record changes after `history`; the log with them. Raises Overtaken after a lost race."""
    import pyarrow as pa

    assert history.head is not None
    before = history.head.body
    columns = {
        "id": [change.row["id"] for change in changes],
        "before": [change.row["label"] for change in changes],
        "label": [change.label for change in changes],
        "batch": [change.row["batch"] for change in changes],
        "source": [change.row["source"] for change in changes],
    }
    ref = write(store, config.name, pa.table({name: pa.array(found, pa.string()) for name, found in columns.items()}))
    pairs = dict(dataset_contents.pairs(store, history.entries))
    for change in changes:
        if change.label is None:
            pairs.pop(change.row["id"], None)
        else:
            pairs[change.row["id"]] = change.label
    groups = dataset_contents.groups(store, dataset_contents.accepted_parts(history.entries), config.group)
    content = dataset_contents.content_digest(pairs.items(), before["preprocessing"], groups)
    body = {
        **{name: before[name] for name in ("classes", "holdout", "preprocessing")},
        **dataset_state.fixed(config),
        "batch": None,
        "parts": [],
        "changes": ref.model_dump(mode="json"),
        "snapshot": short(content),
        "content": content,
        "labels": dict(Counter(pairs.values())) if before["classes"] else {},
        "examples": len(pairs),
    }
    identity = digest(kind, config.name, ref.sha256, history.number)
    return commit_log.commit(store, history, id=identity, kind=kind, body=body, who=person(), why=why)
