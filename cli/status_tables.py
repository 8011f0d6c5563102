"""How `status`, `runs` and `models` are printed for a person. Their documents come from the engine."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cli import batch_lines, show
from schemas.text import counted, printable
from schemas.workloads import overall

MOST = 20
INDENT = 17  # the text begins in this column


def status(pipeline: str, name: str, document: Mapping[str, Any]) -> None:
    """The state of a pipeline. pipeline: as it was given, for the commands that are printed; name: in the tables."""
    width = show.terminal().width
    for word, text in _lines(pipeline, name, document):
        print(show.wrapped(f"{word:<{INDENT}}{show.advice(text)}", width, INDENT))


def _lines(pipeline: str, name: str, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    store = document["store"]
    yield "store", store["uri"] + ("" if store["exists"] else " (does not exist yet: the first `ingest` creates it)")
    since = f" since {when(document['since'])}" if document["champion"] else ""
    yield "champion", f"{document['champion'] or 'none'}{since}"
    if document["damage"]:
        yield "DAMAGED", document["damage"]
    if document["metrics"]:
        yield "holdout", "  ".join(f"{m} {show.figure(document['metrics'][m])}" for m in overall(document["metrics"]))
    yield "newest version", document["newest"] or "none"
    batches = f", {counted(len(document['batches']), 'batch', 'batches')}" if document["batches"] else ""
    yield "dataset", f"{document['snapshot'] or 'empty'} ({counted(document['examples'], 'example')}{batches})"
    if document["examples_per_class"]:
        yield "classes", ", ".join(f"{name} {count}" for name, count in document["examples_per_class"].items())
    yield from _batch_lines(pipeline, name, document)
    yield from _run_lines(pipeline, document)


def _batch_lines(pipeline: str, name: str, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A line for each kind of batch; pending batches always have one."""
    yield "pending batches", _some(document["waiting"]) or "none"
    for each in document["refused"]:
        yield "refused", f"{each['batch']} at {when(each['at'])}: {each['sentence']}"
        told = [f"{found['rows']} {batch_lines.such_as(found)}" for found in each.get("quarantine", ())]
        yield from (("", line) for line in told if line not in printable(each["sentence"]))
    if document["refused"]:
        newest = max(document["refused"], key=lambda each: str(each["at"]))
        yield "", f"row by row: `{batch_lines.quarantine_query(newest['batch'], name)}`"
        yield "", batch_lines.after_refusal(pipeline, "BATCH")
    for each in document["open"]:
        newest = f", the newest written {when(each['newest'])}" if each["newest"] else ""
        note = each["note"] or "it is not read until an empty _READY closes it"
        yield "open", f"{each['batch']}: {counted(each['files'], 'file')}{newest}; {note}"
    for each in document["late"]:
        way = "they are never read there: move them to a batch folder of their own"
        yield "late files", f"{each['batch']}: {each['sentence']}; {way}"
    if document["misnamed"]:
        yield "never read", _some(document["misnamed"]) + " (invalid batch names)"
    if document["discarded"]:
        yield "discarded", _some([f"{each['batch']} ({each['reason']})" for each in document["discarded"]])
    if document["conflicts"]:
        first = ", ".join(f"{row['id'][:12]} as {row['label']}" for row in document["conflicts"][0])
        count = counted(len(document["conflicts"]), "example")
        yield "two labels", f"{count} with several labels, such as {first}; `ingest --correct` or `retract` corrects it"
    for warning in document["warnings"]:
        yield "warning", warning


def _run_lines(pipeline: str, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    running, lost, last = document["running"], document["lost"], document["last_run"]
    if running:
        begun = f"{running['run_id']}, started {when(running['started_at'])}"
        yield "in progress", begun if running["run_id"] else "a run that is preparing its data"
        if running.get("progress"):
            yield "", f"{running['progress']['sentence']} (at {when(running['progress']['at'])})"
    # A lost run that a later run replaced does not matter: its data or configuration are no longer current.
    lost = [run for run in lost if not last or (run["last_change"] or "")[:19] > last["finished_at"][:19]]
    if lost:
        newest = f"{lost[-1]['run_id']}, started {when(lost[-1]['started_at'])}"
        others = f" (and {len(lost) - 1} before it)" if len(lost) > 1 else ""
        forced = " --force" if lost[-1].get("attempt") else ""
        way = f"`{_command('retrain', pipeline)}{forced}` resumes it, if data and YAML are as they were"
        yield "lost run", f"{newest}, stopped before it finished{others}; {way}"
    rejected = document.get("rejected")
    if rejected:
        yield "rejected data", f"`retrain` at {when(rejected['at'])} trained nothing: {rejected['sentence']}"
    used = {(each or {}).get("snapshot") for each in (last, rejected)}
    if document["snapshot"] and not running and document["snapshot"] not in used:
        yield "not trained", f"no finished run used this dataset yet: `{_command('retrain', pipeline)}`"
    if document.get("approval"):
        yield "approval", f"run {document['approval']['run_id']} is {document['approval']['sentence']}"
    ended = last and f"{last['run_id']} {last['verdict']} at {when(last['finished_at'])}: {_reason(last)}"
    yield "last run", ended or "none"


def runs(found: Sequence[dict[str, Any]], rejected: Mapping[str, Any] | None = None) -> None:
    """One line per run: verdict, key metric, deciding reason, time; then what the last `retrain` was rejected for."""
    columns = ("run_id", "verdict", "version", "metric", "when", "cost", "reason")
    lines = [
        {**run, "metric": metric(run["key_metric"]), "when": when(run["finished_at"]), "reason": _reason(run),
         "cost": cost(run.get("cost"))}
        for run in found
    ]  # fmt: skip
    show.rows(lines, columns)
    if rejected:
        told = f"rejected data: `retrain` at {when(rejected['at'])} trained nothing: {rejected['sentence']}"
        print(show.wrapped(show.advice(told), show.terminal().width, 2))


def models(found: Sequence[dict[str, Any]]) -> None:
    """One line per version: its verdict and its key metric."""
    columns = ("version", "champion", "verdict", "metric", "created", "run_id", "snapshot", "bytes")
    lines = [
        {**row, "champion": "yes" if row["champion"] else "", "metric": metric(row["key_metric"]),
         "created": when(row["created_at"])}
        for row in found
    ]  # fmt: skip
    show.rows(lines, columns)


def history(found: Sequence[dict[str, Any]]) -> None:
    """One line per record of the promotions log."""
    columns = ("number", "version", "previous", "kind", "who", "reason", "at")
    show.rows([{**row, "at": when(row["at"])} for row in found], columns)


def metric(found: Mapping[str, Any] | None) -> str:
    """Such as: accuracy 0.9312 (holdout)."""
    return f"{found['name']} {show.figure(found['value'])} ({found['on']})" if found else "-"


def cost(found: Mapping[str, Any] | None) -> str:
    """Such as: 52 s cpu."""
    return f"{found['device_seconds']:,.0f} s {found['device']}" if found else "-"


def when(time: str | None) -> str:
    """A recorded time to the minute, UTC as all of them are."""
    return f"{time[:10]} {time[11:16]} UTC" if time else "-"


def _reason(run: Mapping[str, Any]) -> str:
    """The deciding reason, without the verdict, which has its own column."""
    return str(run["reason"] or "").removeprefix(f"{run['verdict']}, ")


def _some(names: Sequence[str]) -> str:
    """At most MOST of them, and how many more."""
    more = [f"and {len(names) - MOST} more"] if len(names) > MOST else []
    return ", ".join([*names[:MOST], *more])


def _command(name: str, pipeline: str) -> str:
    return show.typed(f"{name} {shlex.quote(pipeline)}")
