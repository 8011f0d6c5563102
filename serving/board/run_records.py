"""A pipeline's finished runs as the pages show them. A run's manifest never changes: each is read once.

What does not belong here: what a run says beyond its row, and how a row looks.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from leptonflow.core import store_keys
from leptonflow.core.concurrency import in_order
from leptonflow.core.hashing import sha256
from leptonflow.runs import recording, summaries
from leptonflow.storage.store import Store
from schemas.errors import Damaged, NotFound
from schemas.text import shortened
from schemas.workloads import lower_is_better, overall

CONFIDENCE = 0.95  # of every interval, two-sided
MOST = 20_000  # runs that are kept in memory, about 2 kB each
LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class Measured:
    """A metric of one run. most: what it cannot exceed.

    folds: its value on each fold; count: the examples that it is a share of, else None.
    """

    value: float
    most: float
    folds: tuple[float, ...] = ()
    count: int | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Of its interval; None where the run's record does not give one. Worked out for the runs that are shown."""
        from leptonflow.statistics import folds, intervals

        if len(self.folds) > 1:
            found = folds.interval(self.folds, len(self.folds) - 1, 1, CONFIDENCE)
        elif self.count:
            found = intervals.wilson(round(self.value * self.count), self.count, CONFIDENCE)
        else:
            return None
        return (max(0.0, found.low), min(self.most, found.high)) if found.low < found.high else None


@dataclass(frozen=True)
class Run:
    """One finished run. champion: after it.

    metrics: by (name, `holdout` or `cv`); key: the pair that the gate's first rule is about
    seconds: of the devices that trained it, else of its fits; None where neither is recorded.
    """

    run_id: str
    version: str
    verdict: str
    champion: str | None
    reason: str
    key: tuple[str, str] | None
    metrics: Mapping[tuple[str, str], Measured]
    started_at: str
    finished_at: str
    seconds: float | None
    snapshot: str | None
    batches: tuple[str, ...]
    train: int | None
    holdout: int | None
    number: int

    @property
    def shown(self) -> Measured | None:
        """The key metric."""
        return self.metrics.get(self.key) if self.key else None


@dataclass(frozen=True)
class FinishedRuns:
    """A pipeline's runs, newest first, and a line for each whose record cannot be read."""

    runs: tuple[Run, ...]
    damage: tuple[str, ...]


class RunRecords:
    """The runs of a store, read once each and kept; safe to use from several threads."""

    def __init__(self, store: Store, most: int = MOST) -> None:
        self._store = store
        self._most = most
        self._kept: OrderedDict[str, Run] = OrderedDict()  # by the manifest's key
        self._damaged: dict[str, tuple[str, str]] = {}  # key: (sha256 of what lies there, the line about it)
        self._lock = threading.Lock()

    def of(self, pipeline: str) -> FinishedRuns:
        """All finished runs of a pipeline. Raises StoreUnreachable."""
        names = self._store.folders(store_keys.runs_folder(pipeline))
        keys = [store_keys.run_key(pipeline, name, "manifest.json") for name in names]
        with self._lock:  # two pages that are asked for at once read the runs once
            new = [key for key in keys if key not in self._kept]
            damage = []
            for key, found in zip(new, in_order(self._read, new), strict=True):
                if isinstance(found, Run):
                    self._kept[key] = found
                elif found is not None:
                    damage.append(found)
            runs = [self._kept[key] for key in keys if key in self._kept]
            for key in keys:
                if key in self._kept:
                    self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        runs.sort(key=lambda run: (run.number, run.finished_at, run.run_id), reverse=True)
        return FinishedRuns(tuple(runs), tuple(damage))

    def _read(self, key: str) -> Run | str | None:
        """The run, the line that says why it cannot be read, or None where it is not finished."""
        try:
            data = self._store.get(key)
            digest = sha256(data)
            before = self._damaged.get(key)
            if before is not None and before[0] == digest:
                return before[1]
            return _run(recording.read_manifest(self._store, key))
        except NotFound:
            return None
        except Damaged as error:
            line = error.line()
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # a record from before it had a digest
            line = f"{key} is not the record of a run: {type(error).__name__} {error}"
        self._damaged[key] = digest, line
        return line


def _run(manifest: Mapping[str, Any]) -> Run:
    document = manifest["document"]
    key = summaries.key_metric(document)
    examples = document.get("examples") or {}
    return Run(
        run_id=document["run_id"],
        version=document["version"],
        verdict=document["verdict"],
        champion=document.get("champion"),
        reason=shortened(summaries.reason(document), LONGEST_REASON),
        key=(key["name"], key["on"]) if key else None,
        metrics=dict(_metrics(document)),
        started_at=manifest["started_at"],
        finished_at=manifest["finished_at"],
        seconds=_seconds(document),
        snapshot=document.get("snapshot"),
        batches=tuple(document.get("batches") or ()),
        train=examples.get("train"),
        holdout=examples.get("holdout"),
        number=manifest.get("number") or 0,
    )


def _metrics(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Measured]]:
    """Those over all classes."""
    cv, holdout = document.get("cv") or {}, document.get("holdout") or {}
    for name in overall(cv):
        if cv[name]["mean"] is not None:
            values = tuple(value for value in cv[name]["folds"] if value is not None)
            yield (name, "cv"), Measured(cv[name]["mean"], _most(name), values)
    count = (document.get("examples") or {}).get("holdout")
    for name in overall(holdout):
        if holdout[name] is not None:
            # A share of the examples, which are independent where they have no groups.
            share = name == "accuracy" and not document.get("groups")
            yield (name, "holdout"), Measured(holdout[name], _most(name), count=count if share else None)


def _most(name: str) -> float:
    """Of a loss there is no end."""
    return math.inf if lower_is_better(name) else 1.0


def _seconds(document: Mapping[str, Any]) -> float | None:
    cost = document.get("cost")
    if cost:
        return float(cost["device_seconds"])
    spent = [document["seconds"][stage] for stage in ("train-fold", "fit-final") if stage in document["seconds"]]
    return sum(spent) if spent else None
