"""How an ingested batch is printed for a person, and what is next where it was refused."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from cli import show
from schemas.text import counted, printable

SHOWN = 20  # changed examples, each on a line
WHOLE_BATCH = "batch-refused"


def ingested(pipeline: str, name: str, document: dict[str, Any]) -> None:
    """The outcome of a batch. pipeline: as it was given; name: the pipeline's name in the tables."""
    rows = {"reused": "ingested before, with these counts", "accepted": "accepted", "refused": "refused"}
    print(f"batch {document['batch']}: {rows[document['outcome']]}")
    counts = ", ".join(f"{document[n]} {name}" for n, name in show.COUNTS.items())
    print(f"  {document['arrived']} arrived: {counts}; {counted(document['ignored'], 'file')} ignored")
    first = {each["rule"]: each for each in document["quarantine"]}
    for rule, count in document["reasons"].items():
        line = f"{count} {such_as(first[rule]) if rule in first else rule}"
        if document["outcome"] != "refused" or line not in printable(document["sentence"]):
            print(f"  {line}")
    for change in document["corrected"][:SHOWN]:
        old = printable(change["old"] or "retracted")
        new, source = printable(change["new"]), printable(change["source"])
        print(f"  {change['id'][:12]} relabelled from {old} to {new} ({source})")
    if len(document["corrected"]) > SHOWN:
        more = show.typed('query "select * from corrections"')
        print(f"  and {len(document['corrected']) - SHOWN} more: {more}")
    if document["outcome"] == "refused":
        print(f"  {show.advice(document['sentence'])}")
    if document["quarantined"]:
        print(f"  row by row: {quarantine_query(document['batch'], name)}")
    if document["outcome"] == "refused":
        print(f"  next: {after_refusal(pipeline, document['batch'])}")
    else:
        print(f"  dataset {document['snapshot']}; next: {show.typed('retrain ' + shlex.quote(pipeline))}")


def such_as(found: Mapping[str, Any]) -> str:
    """A rule that quarantined rows, and the first of them with its reason. A batch that is refused has its own."""
    if found["rule"] == WHOLE_BATCH:
        return f"{found['rule']}: good rows of a batch that is refused as a whole"
    from leptonflow.data.validation.acceptance import NEWER

    told = f"{found['rule']}, such as {found['source']}: {found['reason']}"
    if 0 < found.get("newer", 0) < found["rows"]:  # they have several reasons, and one row is shown
        told += f"; of {found['newer']} the dataset has another label: {NEWER}"
    return printable(told)


def quarantine_query(batch: str, name: str) -> str:
    """The command that lists the quarantined rows of a batch. name: the pipeline's in the tables."""
    where = f"pipeline = '{name}' and batch = '{batch}'"
    return show.typed(f'query "select source, rule, reason from quarantine where {where}"')


def after_refusal(pipeline: str, batch: str) -> str:
    """What to do about a refused batch. pipeline: as it was given."""
    discard = show.typed(f"discard {shlex.quote(pipeline)} {batch} --reason TEXT")
    return f"fix the data and land it under another name; then `{discard}`"
