"""The log of one run as a file in the folder where it runs: what Prefect's page of it says, also when that is gone.

What does not belong here: what is logged.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(".leptonflow", "logs")
LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
LINE = "%(asctime)s %(levelname)-7s %(message)s"


@contextmanager
def kept(pipeline: str) -> Iterator[Path | None]:
    """Write what this process's run logs, and the error that ends it, to a file of its own while the block runs.

    Gives its path; None in a folder that cannot be written, which is no reason not to train.
    """
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    path = FOLDER / f"{pipeline}-{now}-{os.getpid()}.log"
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError:
        yield None
        return
    handler.setFormatter(logging.Formatter(LINE))
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield path
    except BaseException:
        record = logging.LogRecord("leptonflow", logging.ERROR, __file__, 0, "the run ended", (), sys.exc_info())
        handler.handle(record)
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
