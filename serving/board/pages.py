"""The pages as HTML: templates over records, everything escaped, with no script and nothing from elsewhere.

What does not belong here: reading a store, and HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from leptonflow.reports import pages
from leptonflow.reports.wording import duration, interval, number
from leptonflow.runs import comparison
from schemas.text import printable
from serving.board import charts
from serving.board.pipeline_records import PipelineRecord
from serving.board.run_records import Measured, Run
from serving.service import Service

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

LATEST = 4  # runs that a card of the overview lists


@cache
def environment() -> Environment:
    """The templates with their filters, compiled once in a process."""
    made = pages.environment(Path(__file__).parent / "templates")
    made.filters.update(day=day, ago=ago, path=path, value=value, lasted=lasted, measured=measured)
    made.globals.update(chart=metric_chart, growth=charts.growth, kind=kind, amiss=amiss)
    return made


def render(made: Environment, template: str, **view: Any) -> bytes:
    """A page (UTF-8)."""
    return made.get_template(template).render(**view).encode("utf-8", "replace")


# --- how values are written ------------------------------------------------------------------------


def day(text: str | None, now: datetime | None = None) -> str:
    """2026-11-24T15:20:01.123Z as 24 Nov 2026, 15:20, without this year; what is no time as it is."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return printable(text or "")
    year = "" if now is not None and found.year == now.year else f" {found.year}"
    return f"{found.day} {found:%b}{year}, {found:%H:%M}"


def ago(text: str | None, now: datetime) -> str:
    """5 minutes ago, 3 days ago; "" for what is no time."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return ""
    seconds = (now - (found if found.tzinfo else found.replace(tzinfo=UTC))).total_seconds()
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def lasted(seconds: float | None) -> str:
    """5 h 12 min, 12 min 5 s, 75 s, or a dash."""
    if seconds is None:
        return "–"
    return f"{seconds // 3600:,.0f} h {seconds % 3600 // 60:.0f} min" if seconds >= 7200 else duration(seconds)


def measured(found: Measured | None) -> str:
    """The interval of a metric, or nothing."""
    ends = found.ends if found else None
    return interval(*ends) if ends else ""


def value(found: Any) -> str:
    """A value of a configuration: a list with commas, the rest as the command line shows it."""
    return ", ".join(map(comparison.text, found)) if isinstance(found, list) else comparison.text(found)


def path(name: str) -> str:
    """A name as one segment of an address."""
    return quote(name, safe="")


def kind(verdict: str) -> str:
    """The class of a verdict in the style sheet."""
    known = {"promoted": "promoted", "refused": "refused", "rejected": "refused", "waiting": "attention"}
    return known.get(verdict, "other")


def amiss(p: PipelineRecord, service: Service | None) -> bool:
    """Whether what this server serves of a pipeline is not what it should be: its champion, without a problem."""
    if service is None:
        return False
    if p.champion is None and service.pin is None:
        return bool(service.store_problem)  # nothing to serve yet is no fault of a new pipeline
    live = service.live.version if service.live else None
    champion = p.champion["version"] if p.champion else None
    return bool(service.problem or service.store_problem) or live != champion


# --- charts --------------------------------------------------------------------------------------


def metric_chart(pipeline: str, runs: Sequence[Run], width: int, height: int, where: str = "") -> Markup:
    """The key metric of the newest run over those runs that have it.

    runs: newest first; where: a class of the style sheet.
    """
    key = next((run.key for run in runs if run.key), None)
    points = []
    for run in reversed(runs):
        found = run.metrics.get(key) if key else None
        if found is None:
            continue
        told = f"{day(run.finished_at)}: {number(found.value)}, {run.verdict}, version {run.version}"
        link = f"/p/{path(pipeline)}/runs/{path(run.run_id)}/report.html"
        low, high = found.ends or (None, None)
        points.append(charts.Point(found.value, low, high, kind(run.verdict), told, link))
    return charts.metric(points, width, height, where)
