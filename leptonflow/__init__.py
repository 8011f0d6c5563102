"""Floor 1: the engine. Plain functions and frozen records; it never imports Prefect, flows, tasks or the CLI.

A notebook begins with `leptonflow.open()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from leptonflow.notebook.opened_store import OpenedStore

__version__ = "0.2.0"


def open(store: str | Path | None = None) -> OpenedStore:
    """A store, for reading: its tables, pipelines, runs, champions and examples.

    store: a folder, file:///... or s3://bucket/prefix; by default LEPTONFLOW_STORE, else the folder `.leptonflow` below
    the working folder, as on the command line. Raises LeptonflowError where no store lies there.
    """
    from leptonflow.notebook.opened_store import opened

    return opened(None if store is None else str(store))
