"""What the Prefect UI shows of a run: its artifacts. Pure functions of documents and records.

A person reads a run there without its logs, so each artifact says what it is about in its description, which is
all that the run's page shows of it. Names come from outside: they are escaped. What does not belong here: names and
tags (run_names), Prefect's API (run_page), and what a run decides.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.run_names import sentence, some
from leptonflow.core import store_keys
from leptonflow.core.hashing import digest, short
from leptonflow.reports import html_report, plot_files, plots
from leptonflow.reports.wording import bound, duration, number, signed, when
from leptonflow.runs import unchanged
from leptonflow.workloads.confusion_matrix import Matrix
from schemas.drift import DriftRecord
from schemas.records import Evaluation, FitResult, Outcome, RuleResult, SnapshotRef, Verdict
from schemas.text import markdown, printable
from schemas.workloads import overall

MOST_RECORDS = 20
MOST_CONFUSIONS = 5


@dataclass(frozen=True)
class Artifact:
    """One artifact of Prefect's. Its key is one series over the runs of a pipeline."""

    key: str
    type: str  # markdown, table (a list of rows), image (its address), progress (percent)
    description: str  # markdown, one line
    data: Any


@dataclass(frozen=True)
class Trained:
    """What a run that trained and evaluated a candidate knows besides its document."""

    snapshot: SnapshotRef
    evaluation: Evaluation
    fits: Sequence[FitResult]
    final: FitResult
    verdict: Verdict


@dataclass(frozen=True)
class Story:
    """How a run ended: its document (that of `retrain --json`), the batches that it validated, what it trained."""

    document: dict[str, Any]
    outcomes: Sequence[Outcome] = ()
    trained: Trained | None = None


def key(kind: str, pipeline: str) -> str:
    """An artifact's key, of lower case letters, digits and dashes. A name that has others gets a digest."""
    plain = re.sub(r"[^a-z0-9-]+", "-", pipeline)
    return f"{kind}-{plain}" if plain == pipeline else f"{kind}-{plain}-{short(digest(pipeline))[:6]}"


def artifacts(pipeline: str, store: str, story: Story, address: str | None = None) -> list[Artifact]:
    """All that a run leaves in the UI, the summary first. address: where a browser finds the report, if it does."""
    document = story.document
    found = [Artifact(key("summary", pipeline), "markdown", markdown(sentence(document)), summary(pipeline, story))]
    if document["report"]:
        found.append(report(pipeline, store, document, address))
    if story.trained is not None:
        found += [gate(pipeline, document), *images(pipeline, story.trained)]
    return found


def summary(pipeline: str, story: Story) -> str:
    """The verdict and why, data in and out, folds, candidate against champion, what it took."""
    document, trained = story.document, story.trained
    parts = [f"# {document['verdict']}", f"**{pipeline}**: {markdown(sentence(document))}"]
    if document["verdict"] == "unchanged":
        line = unchanged.why_not_champion(pipeline, dict(document))
        parts += [markdown(line)] if line else []
    if document.get("approval"):
        parts.append(markdown(str(document["approval"]["sentence"])))
    parts.append(_table(("", ""), [(name, value) for name, value in _facts(story) if value]))
    if story.outcomes:
        parts += ["## Data in", _batches(story.outcomes), _reasons(story.outcomes)]
    if document["cv"]:
        parts += ["## Folds", _folds(document["cv"])]
    if trained is not None:
        parts += ["## Candidate against champion", *_comparison(trained), "## Gate", _gate(document["gate"])]
        longest = sorted(document["seconds"].items(), key=lambda each: (-each[1], each[0]))
        parts += ["## Time", _table(("stage", "took"), [(stage, duration(seconds)) for stage, seconds in longest])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(story: Story) -> list[tuple[str, str]]:
    document, trained = story.document, story.trained
    snapshot = f"`{document['snapshot']}`" if document["snapshot"] else "empty"
    if trained is not None:
        batches = some(len(trained.snapshot.batches), "batch", "batches")
        snapshot += f": {number(trained.snapshot.examples)} examples of {batches}"
    split = document["examples"]
    counts = f"{number(split['train'])} train, {number(split['holdout'])} holdout" if split["train"] is not None else ""
    return [
        ("dataset", snapshot),
        ("split", counts),
        ("candidate", f"`{document['version']}`" if document["version"] else ""),
        ("champion", f"`{document['champion']}`" if document["champion"] else "none"),
        ("run", f"`{document['run_id']}`" if document["run_id"] else ""),
    ]


def _batches(outcomes: Sequence[Outcome]) -> str:
    head = ("batch", "outcome", "arrived", "accepted", "quarantined", "already ingested", "why")
    counts = ("arrived", "accepted", "quarantined", "known")
    return _table(
        head,
        [(o.batch, o.outcome, *(number(getattr(o, n)) for n in counts), markdown(o.sentence)) for o in outcomes],
    )


def _reasons(outcomes: Sequence[Outcome]) -> str:
    rows = [(markdown(rule), number(count)) for rule, count in html_report.reasons(outcomes)]
    title = "quarantined by rule" + (", of all batches" if len(outcomes) > 1 else "")
    return _table((title, "rows"), rows) if rows else ""


def _folds(cv: Mapping[str, Mapping[str, Any]]) -> str:
    names = overall(cv)
    count = max((len(cv[name]["folds"]) for name in names), default=0)
    head = ("metric", "mean", "std", *(f"fold {n + 1}" for n in range(count)))
    return _table(
        head,
        [(n, number(cv[n]["mean"]), number(cv[n]["std"]), *(number(value) for value in cv[n]["folds"])) for n in names],
    )


def _comparison(trained: Trained) -> list[str]:
    mine, theirs = trained.evaluation.candidate_scores, trained.evaluation.champion_scores
    on = f"On the same {number(mine.examples)} holdout examples."
    if trained.evaluation.champion is None:
        on = f"On {number(mine.examples)} holdout examples. There was no champion."
    elif theirs is None:
        on += f" {markdown(trained.evaluation.not_comparable or 'The champion has no scores.')}"
    rows = []
    for name in overall(mine.metrics):
        own, other = mine.metrics[name], theirs.metrics.get(name) if theirs else None
        difference = None if own is None or other is None else own - other
        rows.append((name, number(own), number(other), signed(difference)))
    champion = f"champion `{trained.evaluation.champion}`" if trained.evaluation.champion else "champion"
    told = [on, _table(("metric", f"candidate `{mine.version}`", champion, "difference"), rows)]
    return [*told, _confused(trained)] if trained.snapshot.classes else told


def _confused(trained: Trained) -> str:
    rows = [
        (markdown(each.label), markdown(each.predicted), number(each.examples), number(each.of))
        for each in _matrix(trained).mistakes[:MOST_CONFUSIONS]
    ]
    return _table(("most confused", "as", "examples", "of"), rows) if rows else ""


def _matrix(trained: Trained) -> Matrix:
    return Matrix(trained.evaluation.candidate_scores.confusion, trained.snapshot.classes)


def _gate(rules: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(f"- {_passed(rule['passed'])}: {markdown(str(rule['sentence']))}" for rule in rules)


def gate(pipeline: str, document: Mapping[str, Any]) -> Artifact:
    """The gate's rules as a table, one row a rule."""
    rules = [RuleResult.model_validate(rule) for rule in document["gate"]]
    rows = [
        {
            "rule": rule.rule,
            "metric": printable(rule.metric or ""),
            "value": number(rule.value),
            "bound": bound(rule.bound),
            "passed": _passed(rule.passed),
            "sentence": printable(rule.sentence),
        }
        for rule in rules
    ]
    counts = Counter(_passed(rule.passed) for rule in rules)
    told = ", ".join(f"{counts[word]} {word}" for word in ("passed", "failed", "not applicable") if counts[word])
    return Artifact(key("gate", pipeline), "table", f"The gate's {len(rules)} rules: {told}", rows)


def images(pipeline: str, trained: Trained) -> list[Artifact]:
    """The learning curves and the confusion matrix, where there is something to draw."""
    fits, final = trained.fits, trained.final
    drawn = [svg for metric in plots.measured(final) if (svg := plots.curves(fits, final, metric))]
    matrix = _matrix(trained).svg()
    of = f"version {trained.verdict.version}"
    found = []
    if drawn:
        told = f"Learning curves of {len(trained.fits)} folds and the final fit, {of}"
        found.append(
            Artifact(key("curves", pipeline), "image", told, plot_files.data_uri(plot_files.standalone(*drawn)))
        )
    if matrix:
        right = number(trained.evaluation.candidate_scores.metrics.get("accuracy"))
        told = f"Confusion matrix on the holdout, {of}: accuracy {right}"
        found.append(Artifact(key("confusion", pipeline), "image", told, plot_files.data_uri(matrix)))
    return found


def report(pipeline: str, store: str, document: Mapping[str, Any], address: str | None = None) -> Artifact:
    """Where the report is. A browser opens no file: link from a page that came by http, hence path and command."""
    place = str(document["report"])
    link = place if "://" in place else Path(place).as_uri()
    command = f"leptonflow report {document['run_id']} --store {shlex.quote(store)}"
    if address is not None:
        told = f"[Report of run {document['run_id']}]({address})\n\nor print its path:\n\n{_code(command)}\n"
        return Artifact(key("report", pipeline), "markdown", f"[{address}]({address})", told)
    told = (
        f"[Report of run {document['run_id']}](<{link}>)\n\n"
        "Browsers do not open a file or an s3 address from here. Copy its address into a new tab:\n\n"
        f"{_code(link)}\n\nor print its path:\n\n{_code(command)}\n"
    )
    return Artifact(key("report", pipeline), "markdown", f"`{command}`", told)


def scored(document: Mapping[str, Any]) -> str:
    """How a run of `score` ended, as plain text."""
    failed = f", {number(document['failed'])} without a prediction" if document["failed"] else ""
    told = f"{number(document['rows'])} rows{failed}, by version {document['version']} ({document['runtime']})"
    return printable(told)


def scores(pipeline: str, store: str, document: Mapping[str, Any]) -> Artifact:
    """What a run of `score` wrote, and where it lies on the store."""
    folder = store_keys.scores_folder(pipeline, document["output"], document["at"])
    facts = [("source", markdown(document["source"])), ("rows", number(document["rows"])),
             ("without a prediction", number(document["failed"])), ("version", f"`{document['version']}`"),
             ("took", duration(document["seconds"]))]  # fmt: skip
    told = markdown(scored(document))
    text = "\n\n".join((f"# {told}", _table(("", ""), facts), "In the store", _code(f"{store}/{folder}")))
    return Artifact(key("scores", pipeline), "markdown", told, text + "\n")


def looked(store: str, record: DriftRecord) -> Artifact:
    """What a look for drift found, and where its page lies on the store."""
    facts = [
        (markdown(test.key), ("drift: " if test.drifted else "") + markdown(test.sentence)) for test in record.tests
    ]
    where = f"{store}/{store_keys.drift_page_key(record.pipeline, record.number)}"
    told = markdown(record.sentence)
    text = "\n\n".join((f"# {told}", _table(("", ""), facts), "In the store", _code(where)))
    return Artifact(key("drift", record.pipeline), "markdown", told, text + "\n")


def champion(pipeline: str, store: str, history: Sequence[Mapping[str, Any]]) -> Artifact | None:
    """The promotions log's last records, newest first; None where nothing was promoted yet.

    It depends on the log alone: the same text means that no promotion, rollback or override came since.
    """
    if not history:
        return None
    last = history[-1]
    reason = markdown(str(last["reason"]))
    told = f"`{last['version']}` by {_by(last)}: {reason}"
    rows = [
        (str(r["number"]), f"`{r['version']}`", f"`{r['previous']}`" if r["previous"] else "none", r["kind"],
         markdown(str(r["who"])), when(str(r["at"])), markdown(str(r["reason"])))
        for r in list(reversed(history))[:MOST_RECORDS]
    ]  # fmt: skip
    text = "\n\n".join(
        (
            f"# {last['version']}",
            f"Champion of **{pipeline}** since {when(str(last['at']))}, by {_by(last)}: {reason}",
            "## Promotions",
            _table(("record", "version", "previous", "kind", "who", "when", "why"), rows),
            f"In the store\n\n{_code(store)}",
        )
    )
    return Artifact(key("champion", pipeline), "markdown", told, text + "\n")


def _by(record: Mapping[str, Any]) -> str:
    return f"{record['kind']} of {markdown(str(record['who']))}"


# --- markdown ------------------------------------------------------------------------------------


def _passed(value: bool | None) -> str:
    return {True: "passed", False: "failed", None: "not applicable"}[value]


def _code(text: str) -> str:
    """A block to copy from. Its fence is longer than any in the text."""
    fence = "`" * max(3, max((len(run) + 1 for run in re.findall(r"`+", text)), default=3))
    return f"{fence}\n{printable(text)}\n{fence}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)
