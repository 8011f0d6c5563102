"""The subcommands that ask where a pipeline stands: status, runs, history. Thin: parse, call, print."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.common import DEBUG, JSON, PIPELINE, STORE, Answer, answer
from schemas.settings import store_uri


def status(pipeline: PIPELINE, store: STORE = None, as_json: JSON = False, debug: DEBUG = False) -> int:
    """The champion, its metrics, the newest version, the dataset, what waits."""
    from cli import show
    from leptonflow import planning, reading
    from leptonflow.store import open_store

    config = planning.load_config(pipeline)
    document = reading.status(open_store(store_uri(store)), config)
    return answer(Answer(document, lambda: show.status(config.name, document)), as_json)


def runs(pipeline: PIPELINE, store: STORE = None, as_json: JSON = False, debug: DEBUG = False) -> int:
    """The runs of a pipeline, newest last."""
    from leptonflow import reading

    return _listing(pipeline, store, as_json, reading.runs, ("run_id", "verdict", "version", "snapshot", "finished_at"))


def history(pipeline: PIPELINE, store: STORE = None, as_json: JSON = False, debug: DEBUG = False) -> int:
    """The promotions log, oldest first."""
    from leptonflow import reading

    return _listing(
        pipeline, store, as_json, reading.history, ("number", "version", "previous", "kind", "who", "reason", "at")
    )


def _listing(
    pipeline: str, store: str | None, as_json: bool, read: Callable[..., list[dict[str, Any]]], columns: tuple[str, ...]
) -> int:
    from cli import show
    from leptonflow import planning
    from leptonflow.store import open_store

    config = planning.load_config(pipeline)
    rows = read(open_store(store_uri(store)), config)
    return answer(Answer(rows, lambda: show.rows(rows, columns)), as_json)
