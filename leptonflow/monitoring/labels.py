"""Labels that come after a prediction was served: recorded by the id of the request, never changed.

Each call writes one file of the table `labels`; of several labels of one request the newest counts. A label is beside
what was predicted, so that the quality of a version can be told when its prediction log is gone. What does not belong
here: files of labels (label_files) and the metrics (live_quality).
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import clock, store_keys
from leptonflow.monitoring import served_log
from leptonflow.registry import packages
from leptonflow.storage import store_identity
from leptonflow.storage.objects import adopt
from leptonflow.storage.store import Store
from leptonflow.tables import table_files, table_sources
from leptonflow.workloads import catalog
from schemas.errors import Damaged, NotFound
from schemas.served import REQUEST_ID

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 100  # refused labels that a document lists, of all that it counts
LONGEST = 1_000  # characters of a label or a name
WHY = {
    "malformed-id": "this is no request id: 32 hex digits, as an answer has it",
    "unknown-id": "the prediction log has no such request; it is there some 30 seconds after the answer, until it is "
    "deleted by its age",
    "wrong-label": "this is no label of the version that answered",
}


class Given(NamedTuple):
    """A label that somebody gives to a request. who: None for whoever sends it."""

    request_id: str
    label: str
    who: str | None = None


def record(store: Store, pipeline: str, given: Sequence[Given], who: str) -> dict[str, Any]:
    """Record each label that belongs to a served request, in one file; what it did, as `label --json` has it.

    {pipeline, accepted, refused, reasons{reason: rows}, rows[{row, request_id, reason, sentence}]}: the first SHOWN
    refused rows, numbered from 1. `who` is recorded where a label names nobody. Raises LeptonflowError where there is
    no store: a request that is not found there may well have been served.
    """
    at, rows = clock.now(), []  # when they were given: a store that hangs makes no label newer than a later one
    store_identity.require(store)
    known = [each for each in given if REQUEST_ID.fullmatch(each.request_id)]
    served = served_log.find(store, pipeline, [each.request_id for each in known])
    fault = _faults(store, pipeline)
    refused: list[tuple[int, str, str, str]] = []
    for number, each in enumerate(given, start=1):
        answered = served.get(each.request_id)
        if answered is None:
            reason = "unknown-id" if REQUEST_ID.fullmatch(each.request_id) else "malformed-id"
            refused.append((number, each.request_id, reason, WHY[reason]))
        elif why := fault(answered["version"], each.label):
            refused.append((number, each.request_id, "wrong-label", f"{WHY['wrong-label']}: {why}"))
        else:
            rows.append(_row(pipeline, each, (each.who or who)[:LONGEST], at, answered))
    if rows:
        _write(store, pipeline, rows)
    return {
        "pipeline": pipeline,
        "accepted": len(rows),
        "refused": len(refused),
        "reasons": dict(Counter(reason for _, _, reason, _ in refused)),
        "rows": [
            {"row": number, "request_id": request_id[:LONGEST], "reason": reason, "sentence": sentence}
            for number, request_id, reason, sentence in refused[:SHOWN]
        ],
    }


def _row(pipeline: str, given: Given, who: str, at: str, served: Mapping[str, Any]) -> dict[str, Any]:
    same = ("version", "predicted", "probability", "outputs", "metadata")
    return {
        "pipeline": pipeline,
        "request_id": given.request_id,
        "label": given.label,
        "who": who,
        "at": at,
        "served_at": served["at"].isoformat(),
        **{name: served[name] for name in same},
    }


def _write(store: Store, pipeline: str, rows: Iterable[Mapping[str, Any]]) -> None:
    table = table_files.arrow("labels", list(rows))
    adopt(store, store_keys.table_key("labels", pipeline, secrets.token_hex(16)), table_files.encode(table))


def _faults(store: Store, pipeline: str) -> Callable[[str, str], str | None]:
    """(version, label) -> why the version cannot have meant it; None where it can."""
    found: dict[str, Any] = {}

    def fault(version: str, label: str) -> str | None:
        if version not in found:
            try:
                found[version] = packages.manifest(store, pipeline, version)
            except (NotFound, Damaged) as error:
                found[version] = error.line()
        manifest = found[version]
        if isinstance(manifest, str):
            return manifest
        target = catalog.load(manifest.workload).target
        if target.classes and label not in manifest.classes:
            return f"expected one of {', '.join(manifest.classes[:SHOWN])}; received {label[:SHOWN]}"
        return target.fault(label) or ("too long" if len(label) > LONGEST else None)

    return fault


def current(store: Store, pipeline: str) -> pa.Table:
    """The newest label of each request of a pipeline: rows of the table `labels`, in the order of the labels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = table_sources.files(store, "labels")
    own = f"{store_keys.table_folder('labels', pipeline)}/"
    loose = f"{store_keys.table_folder('labels')}/"
    keys = [key for key in keys if key.startswith(own) or not key.startswith(loose)]
    rows = table_sources.in_memory(store, "labels", keys)
    rows = rows.filter(pc.equal(rows["pipeline"], pipeline)).sort_by("at")
    last = {request_id: place for place, request_id in enumerate(rows["request_id"].to_pylist())}
    return rows.take(pa.array(sorted(last.values()), pa.int64()))
