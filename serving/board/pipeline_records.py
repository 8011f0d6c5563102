"""Where a pipeline stands, as the pages show it: champion, runs, data, and what a person should look at.

Every part is read by itself: what one part's record is damaged by is told, and the rest is shown. What does not belong
here: single batches, versions and examples, and how anything looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from leptonflow.core import clock, store_keys
from leptonflow.data.dataset import dataset_contents
from leptonflow.data.ingest import batch_state, discards, landing, landing_state
from leptonflow.monitoring import drift_records
from leptonflow.registry import champion_log, packages, serving_decisions
from leptonflow.runs import approvals, pipeline_status, rejections, unfinished
from leptonflow.runs.approvals import Approval
from leptonflow.storage import commit_log
from leptonflow.storage.commit_log import Entry
from leptonflow.storage.store import Store
from schemas.constants import WAITING
from schemas.drift import DriftRecord
from schemas.errors import Damaged, NotFound
from serving.board.run_records import FinishedRuns, Run, RunRecords

GROWTH = 60  # records of the dataset's log that a chart shows
LOOKS = 20  # for drift, of those that a page lists
Part = TypeVar("Part")


@dataclass(frozen=True)
class Folders:
    """Batches that are not in the dataset. refused: (batch, the sentence)."""

    waiting: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    open: tuple[landing_state.Open, ...] = ()


@dataclass(frozen=True)
class PipelineRecord:
    """runs: newest first, each with the verdict that it has now. waiting: the run that a person is to decide about.

    promotions: the promotions log, newest first; its first row names the champion. pins: versions that were served in
    its place, newest first.
    entries: of the dataset's log, oldest first. running: when the run that is under way was started.
    lost: run ids. looks: for drift in what is served, newest first. damage: lines about what could not be read.
    """

    name: str
    runs: tuple[Run, ...]
    waiting: Approval | None
    pins: tuple[dict[str, Any], ...]
    promotions: tuple[dict[str, Any], ...]
    entries: tuple[Entry, ...]
    folders: Folders
    rejected: str | None
    running: str | None
    lost: tuple[str, ...]
    looks: tuple[DriftRecord, ...]
    damage: tuple[str, ...]

    @property
    def growth(self) -> list[int]:
        """How many examples there were after each of the newest records of the dataset's log."""
        return [int(entry.body["examples"]) for entry in self.entries[-GROWTH:]]

    @property
    def batches(self) -> int:
        """How many were accepted."""
        return len(dataset_contents.accepted_batches(self.entries))

    @property
    def champion(self) -> dict[str, Any] | None:
        return self.promotions[0] if self.promotions else None

    @property
    def drift(self) -> DriftRecord | None:
        """The newest look for drift, if it found one in what the present champion predicted."""
        look = self.looks[0] if self.looks else None
        now = self.champion["version"] if self.champion else None
        return look if look is not None and look.verdict == "drift" and look.version == now else None

    @property
    def champion_run(self) -> Run | None:
        """The newest run that evaluated the champion."""
        version = self.champion["version"] if self.champion else None
        return next((run for run in self.runs if run.version == version), None)

    @property
    def shown_run(self) -> Run | None:
        """The run whose key metric is shown: the champion's, else the newest."""
        return self.champion_run or next(iter(self.runs), None)

    @property
    def seconds(self) -> float | None:
        """Of all trainings together."""
        spent = [run.seconds for run in self.runs if run.seconds is not None]
        return sum(spent) if spent else None

    @property
    def wants_attention(self) -> bool:
        found = self.folders
        folders = bool(found.refused) or any(each.wrong for each in found.open)
        asks = self.waiting is not None and self.waiting.request.labels is None  # a canary decides by itself
        return bool(self.damage or self.lost or self.rejected or self.drift) or asks or folders


def readable(damage: list[str], look: Callable[[], Part], otherwise: Part) -> Part:
    """What `look` gives; where its records are damaged, `otherwise`, and a line in `damage`."""
    try:
        return look()
    except (Damaged, NotFound) as error:
        damage.append(error.line())
        return otherwise


def read(store: Store, pipeline: str, records: RunRecords) -> PipelineRecord:
    """What is known of one pipeline. Raises StoreUnreachable; damage is told in the record."""
    damage: list[str] = []

    def part(look: Callable[[], Part], otherwise: Part) -> Part:
        return readable(damage, look, otherwise)

    runs = records.of(pipeline)
    damage += runs.damage
    promotions: tuple[dict[str, Any], ...] = part(lambda: _promotions(store, pipeline, runs), ())
    entries: tuple[Entry, ...] = part(lambda: commit_log.read(store, store_keys.dataset_log(pipeline)).entries, ())
    waited: dict[str, Approval] = part(lambda: approvals.every(store, pipeline, clock.now()), {})
    running, lost = unfinished.runs(store, pipeline, {run.run_id for run in runs.runs})
    if promotions:
        part(lambda: _check_package(store, pipeline, promotions[0]["version"]), None)
    return PipelineRecord(
        name=pipeline,
        runs=tuple(_today(run, waited.get(run.run_id)) for run in runs.runs),
        waiting=next((each for each in waited.values() if each.state in approvals.UNDECIDED), None),
        pins=part(lambda: tuple(reversed(serving_decisions.history(store, pipeline))), ()),
        promotions=promotions,
        entries=entries,
        folders=part(lambda: _folders(store, pipeline, entries), Folders()),
        rejected=part(lambda: _rejected(store, pipeline, runs), None),
        running=None if running is None else running.started_at or "",
        lost=tuple(run.run_id or "" for run in lost),
        looks=part(lambda: drift_records.newest(store, pipeline, LOOKS), ()),
        damage=tuple(damage),
    )


def _today(run: Run, approval: Approval | None) -> Run:
    """What was recorded of a run that waited stays `waiting` for ever."""
    if run.verdict != WAITING or approval is None:
        return run
    reason = run.reason if approval.state == WAITING else approval.sentence
    return replace(run, verdict=approval.state, reason=reason)


def _promotions(store: Store, pipeline: str, found: FinishedRuns) -> tuple[dict[str, Any], ...]:
    """Newest first. Raises Damaged, also where the log has lost its last records."""
    log = champion_log.promotions(store, pipeline, complete=True)
    shorter = pipeline_status.shortened(
        log, [{"champion": run.champion, "run_id": run.run_id} for run in reversed(found.runs)]
    )
    if shorter is not None:
        raise shorter
    return tuple(reversed(champion_log.history(log)))


def _check_package(store: Store, pipeline: str, version: str) -> None:
    """Whether the champion's files are there with their sizes: `verify` reads them. Raises Damaged, NotFound."""
    for file in packages.manifest(store, pipeline, version).files:
        key = store_keys.package_key(pipeline, version, file.key)
        size = store.size(key)
        if size != file.bytes:
            raise Damaged(
                f"{key} is not what was recorded", expected=f"{file.bytes} bytes",
                received="no such object" if size is None else f"{size} bytes",
                hint=f"`leptonflow status {pipeline}` names the newest undamaged champion",
            )  # fmt: skip


def _folders(store: Store, pipeline: str, entries: Sequence[Entry]) -> Folders:
    accepted = set(dataset_contents.accepted_batches(entries))
    gone = discards.names(store, pipeline)
    closed = [name for name in landing.closed_batches(store, pipeline, accepted) if name not in gone]
    refused = batch_state.refused(store, pipeline, accepted)
    named = {each.batch for each in refused}
    return Folders(
        waiting=tuple(name for name in closed if name not in named),
        refused=tuple((each.batch, each.sentence) for each in refused),
        open=tuple(landing_state.open_batches(store, pipeline, accepted)),
    )


def _rejected(store: Store, pipeline: str, found: FinishedRuns) -> str | None:
    """Why the last retraining trained nothing, if no run has finished since."""
    last = rejections.standing(store, pipeline, len(found.runs) + len(found.damage))
    return None if last is None else last.sentence
