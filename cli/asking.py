"""The subcommands that ask where a pipeline stands: status, runs, history. Thin: parse, call, print."""

from __future__ import annotations

from cli.common import DEBUG, JSON, PIPELINE, STORE, Answer, answer, looked_at
from schemas.settings import named_store, store_uri


def status(pipeline: PIPELINE, store: STORE = None, as_json: JSON = False, debug: DEBUG = False) -> int:
    """The store, the champion, its metrics, the dataset, what waits or needs a hand, the runs."""
    from cli import standing
    from leptonflow import planning, reading
    from leptonflow.store import open_store

    config = planning.load_config(pipeline)
    named = store is not None or named_store() is not None
    opened = looked_at(store, required=True) if named else open_store(store_uri())
    document = reading.status(opened, config)
    return answer(Answer(document, lambda: standing.status(pipeline, document)), as_json)


def runs(pipeline: PIPELINE, store: STORE = None, as_json: JSON = False, debug: DEBUG = False) -> int:
    """The runs of a pipeline, newest last."""
    from cli import standing
    from leptonflow import planning, reading

    config = planning.load_config(pipeline)
    found = reading.runs(looked_at(store), config)
    return answer(Answer(found, lambda: standing.runs(found)), as_json)


def history(pipeline: PIPELINE, store: STORE = None, as_json: JSON = False, debug: DEBUG = False) -> int:
    """The promotions log, oldest first."""
    from cli import show
    from leptonflow import planning, reading

    config = planning.load_config(pipeline)
    found = reading.history(looked_at(store), config)
    columns = ("number", "version", "previous", "kind", "who", "reason", "at")
    return answer(Answer(found, lambda: show.rows(found, columns)), as_json)
