"""`canary`: how a candidate does that answers a share of the requests. Thin: parse, call, print."""

from __future__ import annotations

from typing import Any

from cli.common import JSON, PIPELINE, STORE, Answer, answer, looked_at
from schemas.text import printable


def canary(pipeline: PIPELINE, store: STORE = None, as_json: JSON = False) -> int:
    """The canary's labels, and what the gate decided on them. It is decided now where there are enough."""
    from leptonflow.core import clock, pipeline_files
    from leptonflow.runs import canary as canaries

    config = pipeline_files.load_config(pipeline)
    document = canaries.decide(looked_at(store, required=True), config, clock.now())
    return answer(Answer(document, lambda: _told(document)), as_json)


def _told(document: dict[str, Any]) -> None:
    if document["version"] is not None:
        print(f"{document['version']} beside the champion {document['champion']}: {document['state']}")
    print(printable(document["sentence"]))
    for rule in document["gate"] or ():
        passed = {True: "passed", False: "failed", None: "did not apply"}[rule["passed"]]
        print(printable(f"  {rule['rule']}: {passed}: {rule['sentence']}"))
