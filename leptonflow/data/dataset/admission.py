"""Admits a landed batch to the dataset: examine, judge, validate, and commit it or refuse it.

The record in the snapshots log is the truth; batches/*.json and table rows are written from it
afterwards. What does not belong here: what a batch leaves (batch_commit), and the rules (examination, acceptance).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from leptonflow.core import garbage_collection, progress, store_keys
from leptonflow.core.child_processes import Pool
from leptonflow.data.dataset import (
    batch_commit,
    batch_outcomes,
    dataset_state,
    identities,
    part_files,
)
from leptonflow.data.dataset.known_examples import classes, knowledge
from leptonflow.data.ingest import discards, landing, rare_labels
from leptonflow.data.ingest.label_columns import of_pipeline
from leptonflow.data.validation import contracts, examination, faults
from leptonflow.data.validation.acceptance import Judgement, judge, refuse_whole
from leptonflow.data.validation.examined_rows import Row
from leptonflow.storage import commit_log
from leptonflow.storage.objects import parsed
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.constants import ATTEMPTS
from schemas.errors import Damaged, ExaminerLost, Overtaken
from schemas.records import Expectation, Outcome

MOST_CLASSES = 10_000


@dataclass
class Tools:
    """The child processes that admission needs, started early so that their imports cost no waiting."""

    validator: contracts.Validator
    workers: Pool

    def close(self) -> None:
        self.validator.close()
        self.workers.close()


_AT_HAND: ContextVar[Tools | None] = ContextVar("tools", default=None)


@contextmanager
def tools() -> Iterator[Tools]:
    """Tools for what is called in this block: started now, or those of an enclosing `with`; ended with the outermost.

    A flow's parameters are JSON, so they reach its tasks with the context and not as an argument.
    """
    at_hand = _AT_HAND.get()
    if at_hand is not None:
        yield at_hand
        return
    started = Tools(contracts.Validator(), examination.pool())
    token = _AT_HAND.set(started)
    try:
        started.validator.start()
        started.workers.start()
        yield started
    finally:
        _AT_HAND.reset(token)
        started.close()


def earlier(store: Store, config: Pipeline, batch: str, history: commit_log.Log | None = None) -> Outcome | None:
    """The outcome that stands: accepted is final, refused holds under the current contract.

    history  the log that is asked, by default as it is now
    """
    history = dataset_state.snapshots(store, config.name) if history is None else history
    for entry in history.entries:
        if entry.kind == "batch" and entry.body["batch"] == batch:
            return Outcome.model_validate(entry.body["outcome"])
    key = store_keys.outcome_key(config.name, batch, contracts.digest(config))
    if store.size(key) is None:
        return None
    return parsed(store, key, Outcome.model_validate_json)


def admit(store: Store, config: Pipeline, batch: str) -> Outcome:
    """Validate a closed batch and commit it to the dataset, or refuse it whole.

    A batch that cannot be read is refused too: it keeps no other batch waiting. What is wrong with the store, the
    configuration or the machine is raised, and so is UsageError for a batch that somebody has discarded.

    Idempotent: a batch that was admitted or refused before returns that outcome. After a lost
    race the batch is validated again against the new dataset, ten times at most (Overtaken).
    """
    outcome = earlier(store, config, batch)
    if outcome is None:
        if discarded := discards.of(store, config.name, batch):
            raise discards.refused(discarded)
        with tools() as at_hand, garbage_collection.paused():
            outcome = _decide(store, config, batch, at_hand)
    batch_outcomes.repair_batches(store, config.name)
    return outcome


def _decide(store: Store, config: Pipeline, batch: str, at_hand: Tools) -> Outcome:
    """The batch's outcome, decided and recorded against one and the same state of the log.

    Whatever another process committed since is seen: a commit onto the judged log fails, and then everything that the
    log decides is asked again, whether this very batch is in it first of all.
    """
    landed, fault = landing.empty(config.name, batch), None
    examined: tuple[tuple[str, ...] | None, list[Row]] | None = None
    for attempt in range(ATTEMPTS):
        history = _to_judge_by(store, config)
        before = earlier(store, config, batch, history)
        if before is not None:
            return before
        known = classes(config, history)
        if fault is None and (examined is None or examined[0] != known):  # folders and class numbers are read by them
            landed, rows, fault = _examined(store, config, batch, known, at_hand)
            examined = known, rows
        try:
            return _judged(store, config, history, landed, examined[1] if examined else [], fault, at_hand)
        except Overtaken:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _examined(
    store: Store, config: Pipeline, batch: str, known: tuple[str, ...] | None, at_hand: Tools
) -> tuple[landing.Batch, list[Row], str | None]:
    """A closed batch and its rows; none, and the sentence that refuses it, where it cannot be examined at all.

    A batch whose `_READY` is damaged is empty. A child process may end for reasons of the machine's: the batch is at
    fault where it happens twice.
    """
    landed = landing.empty(config.name, batch)
    workload = catalog.load(config.workload)
    columns = of_pipeline(workload, config.input).grouped(config.group)
    for again in (False, True):
        try:
            try:
                landed = landing.open_batch(store, config.name, batch, known, workload.suffixes, columns)
            except Damaged as error:
                return landed, [], error.line()
            rows = examination.examine(
                store, config, landed, workload, classes=known, progress=progress.report, workers=at_hand.workers
            )
            return landed, rows, None
        except Exception as error:  # what comes from outside may raise anything, and blocks no other batch
            if isinstance(error, ExaminerLost):
                at_hand.workers.close()
                at_hand.workers.start()
                if not again:
                    continue
            fault = faults.sentence(error)
            if fault is None:
                raise
            return landed, [], fault
    raise AssertionError("unreachable")


def _to_judge_by(store: Store, config: Pipeline) -> commit_log.Log:
    """The dataset's log, after what is there follows the YAML's preprocessing and has canonical digests."""
    history = dataset_state.snapshots(store, config.name)
    dataset_state.check_group(config, history)
    if history.head is None or (
        history.head.body["preprocessing"] == dataset_state.preprocessing(config) and not identities.pending(history)
    ):
        return history
    from leptonflow.data.dataset import reencoding

    reencoding.preprocess(store, config)
    return dataset_state.snapshots(store, config.name)


def _judged(
    store: Store,
    config: Pipeline,
    history: commit_log.Log,
    landed: landing.Batch,
    rows: Sequence[Row],
    fault: str | None,
    at_hand: Tools,
) -> Outcome:
    """Judge examined rows against `history`, and record the outcome. Raises Overtaken where the log has gone on.

    fault  why there are no rows, of a batch that could not be examined
    """
    target, known = catalog.load(config.workload).target, classes(config, history)
    found, complaint = _first_classes(known, rows, landed) if target.classes else ((), None)
    judgement = judge(
        rows,
        knowledge(store, config, history),
        found,
        limit=config.quarantine.limit,
        known_at_landing=landed.known,
        fault=None if target.classes else target.fault,
    )
    if target.classes and history.head is None:
        accepted = Counter(str(row.label) for row in judgement.accepted)
        rare = rare_labels.warnings(accepted, config.training.folds, named=config.classes is not None)
        judgement = replace(judgement, warnings=(*judgement.warnings, *rare))
    expectations, part = _validate_and_encode(config, landed.name, judgement, at_hand)
    failed = [e for e in expectations if not e.success]
    unread = judgement.over if all(row.rule is not None for row in rows) else None  # and so it has no classes either
    sentence = fault or unread or complaint or judgement.over or (_failed_sentence(failed) if failed else None)
    if sentence is None:
        mine = batch_commit.commit(store, config, history, landed, judgement, expectations, found, part)
        # An own record whose reply was lost is the one that lies there: take its outcome, not ours.
        return earlier(store, config, landed.name) or mine
    commit_log.still(store, history, f"refusal of the batch {landed.name}")
    refused = batch_commit.refuse(store, config, landed, refuse_whole(judgement, sentence), expectations, sentence)
    return earlier(store, config, landed.name) or refused  # who accepted it at the same moment has decided


def _first_classes(
    known: tuple[str, ...] | None, rows: Sequence[Row], landed: landing.Batch
) -> tuple[tuple[str, ...], str | None]:
    """The classes that a first batch fixes: the labels of its examples, sorted, the class numbers of arrays as numbers.

    A folder without a single readable example is no class.
    """
    if known is not None:
        return known, None
    labels = {row.label for row in rows if row.label and row.rule is None and row.no_group is None}
    if landed.layout == "npy":
        numbers = sorted(int(name) for name in labels)
        if len(numbers) >= MOST_CLASSES:
            return (), f"there are {len(numbers)} different labels; set `classes` in the YAML if there are so many"
        found = tuple(str(n) for n in numbers)
    else:
        found = tuple(sorted(labels))
    if len(found) < 2:
        there = ", ".join(found) or "none"
        return found, (
            f"a first batch fixes the classes and needs at least two; it has {there}. "
            f"`classes` in the YAML names them beforehand"
        )
    return found, None


def _validate_and_encode(
    config: Pipeline, batch: str, judgement: Judgement, at_hand: Tools
) -> tuple[tuple[Expectation, ...], part_files.EncodedPart | None]:
    """The suite's results and the part of the accepted rows, which is encoded while the child validates."""
    rows = judgement.accepted
    if not rows or judgement.over is not None:
        return (), None
    import pyarrow as pa

    facts = part_files.facts_columns([row.facts or {} for row in rows])
    table = pa.table({**facts, "label": [row.label for row in rows]})
    with ThreadPoolExecutor(1) as beside:
        sources = [row.source for row in rows]
        expectations = beside.submit(at_hand.validator.validate, table, contracts.read_contract(config), sources)
        part = part_files.encode_part(config, batch, [_accepted(row) for row in rows], facts)
        return expectations.result(), part


def _accepted(row: Row) -> part_files.Accepted:
    return part_files.Accepted(
        id=str(row.id), sha256=str(row.sha256), label=str(row.label), source=row.source, key=row.key, row=row.row,
        facts=row.facts or {}, encoded=row.encoded or b"", group=row.group,
    )  # fmt: skip


def _failed_sentence(failed: Sequence[Expectation]) -> str:
    first = failed[0]
    where = f" of {first.column}" if first.column else ""
    told = f"{first.expectation}{where} (observed {first.observed})"
    return f"the expectation {told} failed" if len(failed) == 1 else f"{len(failed)} expectations failed, first {told}"
