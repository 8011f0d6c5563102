"""Whether Prefect can schedule a cron: asked of the very parser that will run it.

Prefect carries a copy of croniter. Its file is loaded by itself (20 ms), because Prefect's own import takes a second,
which a command that only reads the YAML would pay. What does not belong here: time zones.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from importlib import util
from pathlib import Path
from types import ModuleType

FILE = Path("_vendor", "croniter", "croniter.py")


def check(text: str) -> None:
    """Raise ValueError, with the reason, where it is not five fields of cron with a next date."""
    if len(text.split()) != 5 or re.search(r"(?i)(?<![a-z])[rh](?![a-z])", text):  # Prefect takes no random, no hashed
        raise ValueError("not five fields")
    parser = _croniter()
    try:
        parser.croniter(text, datetime(2020, 1, 1)).get_next(datetime)
    except parser.CroniterBadDateError:
        raise ValueError("this one never comes") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(str(error)) from None


@cache
def _croniter() -> ModuleType:
    prefect = util.find_spec("prefect")
    assert prefect is not None and prefect.origin is not None  # a dependency
    spec = util.spec_from_file_location("leptonflow_croniter", Path(prefect.origin).parent / FILE)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
