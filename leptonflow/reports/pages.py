"""The templates of the pages and their filters: everything is escaped, a name that is not given is an error.

What a page shows does not belong here (html_report, study_page).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from leptonflow.reports.wording import bound, chance, duration, file_name, interval, label, number, signed, when
from schemas.text import noun, printable

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def shared() -> Environment:
    """For pages that add nothing to it: a template is compiled once in a process."""
    return environment()


def environment(*others: Path) -> Environment:
    """Made anew at each call. others: folders with more templates."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader([Path(__file__).parent / "templates", *others]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=number, bound=bound, signed=signed, seconds=duration, when=when, printable=printable, p=chance,
        label=label, noun=noun, file_name=file_name,
    )  # fmt: skip
    made.globals["interval"] = interval
    return made
