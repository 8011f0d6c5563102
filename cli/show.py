"""How results are printed for a person: tables on standard output, progress and warnings on standard error."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonflow.core import progress as reports
from schemas.text import counted, printable
from schemas.workloads import overall

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console
    from rich.progress import Progress, Task
    from rich.table import Table

    from leptonflow.storage.store import Store
    from schemas.config import Pipeline

COUNTS = {"accepted": "accepted", "quarantined": "quarantined", "known": "already ingested"}
WITHOUT_STORE = ("init", "deploy", "down", "logs")
STAGES = {
    "landing": "landing files",
    "examining": "checking examples",
    "verifying": "reading objects",
}


def warn(text: str) -> None:
    """One line on standard error."""
    print(f"leptonflow: {advice(text)}", file=sys.stderr)


@contextmanager
def progress() -> Iterator[None]:
    """Show the engine's progress as bars while the block runs; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        with reports.listen(None, warn):
            yield
        return
    from rich.console import Console

    with bars_on(Console(stderr=True)) as bars:
        shown: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if not done and stage in shown:  # from its beginning again, as in the next trial of a study
                for later in [*shown][[*shown].index(stage) :]:
                    bars.remove_task(shown.pop(later))
            if stage not in shown:
                shown[stage] = bars.add_task(STAGES.get(stage, stage), total=total or None, detail="")
            bars.update(shown[stage], completed=done, total=total or None)

        def note(text: str) -> None:
            bars.console.print(f"leptonflow: {advice(text)}", highlight=False)

        def detail(stage: str, text: str) -> None:
            if stage in shown:
                bars.update(shown[stage], detail=text)

        with reports.listen(report, note, detail):
            yield


def bars_on(console: Console) -> Progress:
    """Bars with a detail each, which is what is cut where the terminal is too narrow."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column
    from rich.text import Text

    class Detail(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.fields["detail"], no_wrap=True, overflow="ellipsis")

    name, bar = TextColumn("{task.description}"), BarColumn(20, table_column=Column(no_wrap=True))
    count, elapsed = (each(table_column=Column(no_wrap=True)) for each in (MofNCompleteColumn, TimeElapsedColumn))
    return Progress(name, bar, count, elapsed, Detail(), console=console, transient=True)


def terminal() -> Console:
    """Standard output as rich writes to it."""
    from rich.console import Console

    # A file or a pipe has no width of its own: wide enough that no cell is cut.
    width = None if sys.stdout.isatty() else max(120, int(os.environ.get("COLUMNS", "120")))

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process

    return Terminal(width=width, highlight=False, soft_wrap=False)


def grid(*columns: str) -> Table:
    """An empty table with these columns."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def figure(value: Any) -> str:
    """A value as a cell: floats to four places."""
    if isinstance(value, float):
        # A tolerance of 1e-05 must not read as 0.
        return f"{value:g}" if value.is_integer() or abs(value) < 1e-3 else f"{value:.4f}"
    return "-" if value is None else printable(str(value))


def _four(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def command() -> str:
    """How this command is called here: its name where it is on the PATH, else its path."""
    called = Path(sys.argv[0])
    if called.name != "leptonflow":
        return "leptonflow"
    found = shutil.which("leptonflow")
    if found and Path(found).resolve() == called.resolve():
        return "leptonflow"
    return shlex.quote(os.path.relpath(called))


def typed(words: str) -> str:
    """A command to be pasted: `words` after the program's name, and --store where this command was given it."""
    given = _given_store()
    takes = given and "--store" not in words and words.split()[0] not in WITHOUT_STORE
    return f"{command()} {words}" + (f" --store {shlex.quote(given)}" if given and takes else "")


def _given_store() -> str | None:
    for number, word in enumerate(sys.argv[1:], start=2):
        if word.startswith("--store"):
            return word.partition("=")[2] or next(iter(sys.argv[number:]), None)
    return None


def advice(text: str) -> str:
    """Text of the engine, safe for a terminal, with each `leptonflow ...` in it as it is typed here."""
    return re.sub(r"`leptonflow ([^`]+)`", lambda found: f"`{typed(found[1])}`", printable(text))


def wrapped(text: str, width: int, indent: int = 0) -> str:
    """Lines of at most `width`, all but the first indented. A command in backticks stays in one, to be pasted."""
    whole = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", "\0"), text)
    later = " " * indent
    told = textwrap.fill(whole, width, subsequent_indent=later, break_long_words=False, break_on_hyphens=False)
    return told.replace("\0", " ")


def retracted(document: dict[str, Any]) -> None:
    """The examples that were removed from the dataset."""
    for row in document["retracted"]:
        what = f"{printable(row['label'])}, {printable(row['source'])} of batch {row['batch']}"
        print(f"{row['id'][:12]} ({what}) was retracted")
    if not document["retracted"]:
        print("nothing to do: these examples were retracted before")
    print(f"dataset {document['snapshot']}: {counted(document['examples'], 'example')}")


def retrained(store: Store, config: Pipeline, pipeline: str, document: dict[str, Any]) -> None:
    """The short table at the end of a retraining."""
    from rich.markup import escape
    from rich.text import Text

    from leptonflow.data.dataset import dataset_state

    console = terminal()
    log = dataset_state.snapshots(store, config.name)
    counts = [entry.body["counts"] for entry in log.entries if entry.kind == "batch"]
    data = ", ".join(f"{sum(c[n] for c in counts)} {name}" for n, name in COUNTS.items())
    data += f" in {counted(len(counts), 'accepted batch', 'accepted batches')}"
    console.print()
    colours = {"promoted": "green", "unchanged": "blue", "refused": "yellow", "rejected-data": "red",
               "waiting": "magenta"}  # fmt: skip
    verdict = document["verdict"]
    sentence = (document.get("sentence") or "").removeprefix(verdict)
    if verdict == "unchanged":
        sentence = f": nothing new since run {document['run_id']}, which was {sentence}"
    elif not sentence.startswith((",", " ")):
        sentence = f": {sentence}"
    console.print(f"[bold {colours[verdict]}]{verdict}[/]{escape(advice(sentence))}")
    console.print()
    facts = grid("", "")
    facts.show_header = False
    facts.add_row("pipeline", config.name)
    facts.add_row("data", f"{data} (snapshot {document['snapshot'] or '-'})")
    if document["examples"] and document["examples"]["train"] is not None:
        facts.add_row("split", f"{document['examples']['train']} train, {document['examples']['holdout']} holdout")
    if document.get("groups"):
        facts.add_row("groups", f"{document['groups']['train']} train, {document['groups']['holdout']} holdout")
    metrics = overall(document["cv"] or {})
    for metric in metrics[:1]:
        result = document["cv"][metric]
        folds, mean, std = ("  ".join(map(_four, of)) for of in (result["folds"], [result["mean"]], [result["std"]]))
        facts.add_row(f"folds, {metric}", f"{folds}   mean {mean}, std {std}")
    if document["holdout"]:
        shown = overall(document["holdout"])
        facts.add_row("holdout", "  ".join(f"{m} {figure(document['holdout'].get(m))}" for m in shown))
    facts.add_row("candidate", document["version"] or "-")
    facts.add_row("champion", document["champion"] or "none")
    console.print(facts)
    if document["gate"]:
        console.print()
        console.print(_gate_table(document["gate"]))
    console.print()
    if document["verdict"] == "refused" and (told := _advice(store, config, document["run_id"])):
        console.print(Text(f"{told}\n"))
    if document["report"]:
        console.print(Text(f"report    {document['report']}"), soft_wrap=True)
    console.print(Text(f"tables    {store.uri}/tables"), soft_wrap=True)
    commands = _next(config, pipeline, document, next(iter(metrics), None))
    for number, text in enumerate(commands):
        console.print(Text(f"{'' if number else 'next':<10}{typed(text)}"), soft_wrap=True)


def _advice(store: Store, config: Pipeline, run_id: str) -> str | None:
    """What a person may try after a refusal."""
    from leptonflow.runs import recording, refusal_advice

    verdict = recording.standing(store, config.name, run_id)
    return refusal_advice.advice(store, config.name, verdict) if verdict is not None else None


def _next(config: Pipeline, pipeline: str, document: Mapping[str, Any], metric: str | None) -> list[str]:
    """The commands that a person may want after a retraining. metric: the one of its folds."""
    given, verdict = shlex.quote(pipeline), document["verdict"]
    where = f"where pipeline = '{config.name}'"
    if verdict == "rejected-data":
        return [f"status {given}", f'query "select batch, source, rule, reason from quarantine {where}"']
    first = f"{'explain' if verdict == 'refused' else 'status'} {given}"
    if verdict == "unchanged" and _was_refused(document):
        first = f"explain {given} {document['run_id']}"  # another run may be newer
    commands = [
        first,
        *([f"history {given}"] if document["champion"] else []),
        f"query \"select version, fold, value from folds {where} and metric = '{metric}'\"",
    ]
    if verdict == "waiting":
        commands[:0] = [f"approve {given} {document['run_id']}", f"reject {given} {document['run_id']} --reason TEXT"]
    return commands


def _was_refused(document: Mapping[str, Any]) -> bool:
    """Whether the earlier run of an unchanged one was refused: by a rule, or because none of the YAML applied."""
    failed = any(rule["passed"] is False for rule in document["gate"] or ())
    return failed or str(document.get("sentence")).startswith("refused")


# Rules whose numbers tell nobody whether they hold: a difference that has to exceed its bound, records of a log.
NUMBERLESS = ("same-predictions", "stale-snapshot")


def _gate_table(rules: Sequence[dict[str, Any]]) -> Table:
    from rich.markup import escape

    table = grid("gate rule", "metric", "value", "bound", "passed")
    for rule in _gate_lines(rules):
        passed = {True: "[green]yes[/]", False: "[red]no[/]", None: "n/a"}[rule["passed"]]
        value, bound = (None, None) if rule["rule"] in NUMBERLESS else (rule["value"], rule["bound"])
        table.add_row(
            escape(printable(rule["rule"])), escape(rule.get("metric") or ""), figure(value), figure(bound), passed
        )
    return table


def _gate_lines(rules: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each rule, and for each slice that refused; the other slices of a rule are counted in one."""
    lines: list[dict[str, Any]] = []
    counted: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for rule in rules:
        if rule.get("slice") is None or rule["passed"] is False:
            name = rule["rule"] if rule.get("slice") is None else f"{rule['rule']}: {rule['slice']}"
            lines.append({**rule, "rule": name})
            continue
        same = counted.setdefault((rule["rule"], rule["metric"], rule["bound"]), [])
        if not same:
            lines.append({**rule, "value": None, "same": same})
        same.append(rule)
    for line in lines:
        if "same" in line:
            judged = sum(rule["passed"] is True for rule in line["same"])
            small = len(line["same"]) - judged
            line["rule"] += f" ({judged} passed" + (f", {small} too small)" if small else ")")
            line["passed"] = True if judged else None
    return lines


WORDS = ("reason", "sentence", "who")  # the columns that may take several lines


def rows(found: Sequence[dict[str, Any]], columns: Sequence[str], long: Sequence[str] = WORDS) -> None:
    """A list of records. Values of the long columns may take several lines; the others are never cut in two."""
    from rich.markup import escape

    if not found:
        print("none yet")
        return
    table = grid(*columns)
    for column in table.columns:
        column.no_wrap = column.header not in long  # an id in two pieces cannot be copied
    for record in found:
        table.add_row(*(escape(figure(record.get(c))) for c in columns))
    terminal().print(table)


def overridden(document: dict[str, Any]) -> None:
    """The result of a person's decision."""
    record = document["record"]
    if record is None:
        print(f"{document['champion']} is the champion already; nothing was recorded")
        return
    by = printable(record["who"])
    print(f"champion {document['champion']} (record {record['number']}, {record['kind']} by {by})")


def as_text(table: pa.Table) -> str:
    """A query's result as a table, and how many rows it has."""
    from io import StringIO

    from rich.console import Console
    from rich.markup import escape

    from leptonflow.tables import formats

    shown = grid(*(escape(printable(name)) for name in table.column_names))
    for row in formats.rows(table):
        shown.add_row(*(escape(figure(value)) for value in row))
    width = None if sys.stdout.isatty() else 200
    text = StringIO()
    Console(file=text, width=width, highlight=False).print(shown)
    return text.getvalue() + f"{counted(table.num_rows, 'row')}\n"


def deployed(document: dict[str, Any]) -> None:
    """Each deployment with its schedule, each automation, and the limit of this host's GPUs."""
    columns = ("name", "schedule", "debounce", "outcome")
    rows(document["deployments"], columns)
    for each in (*document["automations"], *document["limits"]):
        print(f"{each['outcome']:<10} {printable(each['name'])}")


def checks(found: Sequence[dict[str, Any]]) -> None:
    """One line each."""
    for check in found:
        mark = "ok   " if check["ok"] else "WRONG"
        print(f"{mark} {check['name']:<12} {printable(check['detail'])}")


def verified(document: dict[str, Any]) -> None:
    """One line for each object that is damaged or missing, and how much was read."""
    for each in document["damaged"]:
        print(printable(f"{each['key']}: expected {each['expected']}, received {each['received']}"))
    read = f"{counted(document['objects'], 'object')}, {document['bytes'] / 1e6:.1f} MB"
    print(f"{read}: {len(document['damaged']) or 'none'} damaged or missing")
