"""The pages of a store: addresses to records, and those to HTML. Everything but `decide` only reads.

What does not belong here: which address is whose (router), what a page shows (the records), and how it looks (pages).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from leptonflow.core import store_keys
from leptonflow.core.concurrency import in_order
from leptonflow.monitoring import drift_records
from leptonflow.registry import packages
from leptonflow.reports import drift_page
from leptonflow.runs import stored_pipelines
from leptonflow.storage import commit_log
from leptonflow.storage.store import Store
from leptonflow.workloads.base import Shown
from schemas.config import NAME
from schemas.errors import LeptonflowError, NotFound, StoreUnreachable
from schemas.records import Outcome
from schemas.workloads import lower_is_better
from serving.api_keys import Keys
from serving.board import (
    batch_records,
    decisions,
    holdout_examples,
    landed_content,
    landed_pictures,
    pages,
    pipeline_records,
    served_records,
    version_comparison,
)
from serving.board.landed_content import Content
from serving.board.pipeline_records import PipelineRecord
from serving.board.run_records import Run, RunRecords
from serving.board.served_records import ServedVersion
from serving.problems import Problem
from serving.service import Service

RUNS_OF_A_PAGE = 50
EXAMPLES_OF_A_PAGE = 36
TOGETHER = 8  # pipelines that the first page reads at once
MOST_CHANGED = 18  # examples of each kind that a comparison shows
MOST_ROWS = 50  # of promotions and of batches
RUN_ID = re.compile(r"[0-9a-f]{12}")
DIGEST = re.compile(r"[0-9a-f]{64}")
STUDY_PAGE = re.compile(r"[0-9A-Za-z._-]{1,80}\.html")
HTML = "text/html; charset=utf-8"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# A report brings its own style, and may do nothing else.
REPORT = {
    **HEADERS, "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
}  # fmt: skip
PICTURE = {
    **HEADERS, "Content-Security-Policy": "sandbox; default-src 'none'", "Cache-Control": "private, max-age=3600",
}  # fmt: skip


class Board:
    """The pages of one store, and what they keep of it while the process lives.

    services: what this process serves, by the pipelines' names; keys: who may decide about a run that waits.
    """

    def __init__(self, store: Store, services: Mapping[str, Service], keys: Keys) -> None:
        self.store, self.services, self.keys = store, services, keys
        self.configs = {name: service.config for name, service in services.items()}
        self.records = RunRecords(store)
        self.templates = pages.environment()
        self.style = pages.render(self.templates, "board.css.j2")

    def page(self, template: str, trail: list[tuple[str, str]], status: int = 200, **view: Any) -> Response:
        """A page; trail: (text, address) of the pages above it, then itself with no address."""
        now = datetime.now(UTC)
        html = pages.render(self.templates, template, **{"trail": trail, "store": self.store.uri, "now": now, **view})
        return Response(html, status, HEADERS, HTML)

    def warm(self) -> None:
        """Read every run once, so that the first page need not; what cannot be read is told by the pages."""
        with suppress(LeptonflowError):
            for name in stored_pipelines.names(self.store):
                self.records.of(name)
            if not self.services:  # a server of predictions keeps its memory for them
                self.templates.get_template("pipeline.html.j2")
                first_page(self)

    def problem(self, status: int, title: str, line: str) -> Response:
        return self.page("problem.html.j2", [], status, title=title, line=line)

    def refused(self, problem: Problem) -> Response:
        """For who may have no key: nothing of the store."""
        line = problem.error.line()
        page = self.page("problem.html.j2", [], problem.status, title="This was refused", line=line, store="")
        page.headers.update(problem.headers)
        return page

    def named(self, request: Request) -> str:
        """The name of a pipeline that the store holds. Raises NotFound."""
        name = str(request.path_params["name"])
        if not NAME.fullmatch(name) or name not in stored_pipelines.names(self.store):
            raise NotFound("the store holds no such pipeline", expected="one of the pipelines of the first page")
        return name

    def known(self, request: Request) -> PipelineRecord:
        return pipeline_records.read(self.store, self.named(request), self.records)

    def shown(self, damage: list[str], name: str, version: str, ids: list[str]) -> dict[str, Shown]:
        """How these examples look, by their ids; why they are not shown is a line in `damage`."""

        def look() -> dict[str, Shown]:
            manifest = packages.known(self.store, name, version, "the version")
            return holdout_examples.shown(self.store, manifest, ids)

        return pipeline_records.readable(damage, look, {})

    def run(self, name: str, run_id: str) -> Run:
        """A finished run. Raises NotFound."""
        found = next((run for run in self.records.of(name).runs if run.run_id == run_id), None)
        if found is None:
            raise NotFound("no finished run has that id", expected="a run of the pipeline's page")
        return found


def overview(board: Board, request: Request) -> Response:
    return first_page(board)


def first_page(board: Board) -> Response:
    names = stored_pipelines.names(board.store)
    found = list(in_order(lambda name: pipeline_records.read(board.store, name, board.records), names, TOGETHER))
    troubled = {p.name for p in found if p.wants_attention or pages.amiss(p, board.services.get(p.name))}
    found.sort(key=lambda p: p.name not in troubled)
    return board.page(
        "overview.html.j2", [], pipelines=found, troubled=len(troubled), latest=pages.LATEST, services=board.services
    )  # fmt: skip


def style(board: Board, request: Request) -> Response:
    return Response(board.style, headers={**HEADERS, "Cache-Control": "max-age=3600"}, media_type="text/css")


def pipeline(board: Board, request: Request) -> Response:
    found = board.known(request)
    page, count, runs = _paged(request, found.runs, RUNS_OF_A_PAGE)
    damage = list(found.damage)
    batches: list[Outcome] = pipeline_records.readable(
        damage, lambda: batch_records.outcomes(board.store, found.name, found.entries, MOST_ROWS), []
    )
    served: list[ServedVersion] = pipeline_records.readable(
        damage, lambda: served_records.newest(board.store, found.name), []
    )
    found = replace(found, damage=tuple(damage))
    told = {run.version: f"{pages.day(run.finished_at)} · {run.verdict}" for run in reversed(found.runs)}
    versions = [(version, f"{version} · {text}") for version, text in reversed(told.items())]
    return board.page(
        "pipeline.html.j2", [(found.name, "")], p=found, runs=runs, page=page, pages=count, batches=batches,
        shown_batches=MOST_ROWS,
        shown_promotions=MOST_ROWS, versions=versions[:MOST_ROWS], before=_before(found, versions),
        studies=_studies(board.store, found.name), service=board.services.get(found.name),
        served=served,
        form=found.waiting is not None and bool(board.keys) and bool(decisions.configured(board.configs, found.name)),
    )  # fmt: skip


def _before(found: PipelineRecord, versions: list[tuple[str, str]]) -> str | None:
    """What a comparison begins with beside the newest version: the champion, or the one before it."""
    champion = found.champion or {"version": None, "previous": None}
    newest = versions[0][0] if versions else None
    second = versions[1][0] if len(versions) > 1 else None
    return (champion["version"] if champion["version"] != newest else champion["previous"]) or second


def compare(board: Board, request: Request) -> Response:
    name = board.named(request)
    runs = board.records.of(name).runs
    left, right = (request.query_params.get(side, "") for side in ("left", "right"))
    for side in (left, right):
        packages.named("a version of the comparison", side)
    c = version_comparison.compare(board.store, name, left, right, runs)
    lost, won = c.lost[:MOST_CHANGED], c.won[:MOST_CHANGED]
    damage: list[str] = []
    shown = board.shown(damage, name, right, [pair.right.example_id for pair in (*lost, *won)])
    return board.page(
        "compare.html.j2", [(name, f"/p/{pages.path(name)}"), ("compare", "")], p=name, c=c, lost=lost, won=won,
        damage=damage, shown=shown, texts=any(each.text is not None for each in shown.values()), lower=lower_is_better,
    )  # fmt: skip


def quarantine(board: Board, request: Request) -> Response:
    name = board.named(request)
    entries = commit_log.read(board.store, store_keys.dataset_log(name)).entries
    outcomes = batch_records.outcomes(board.store, name, entries)
    trail = [(name, f"/p/{pages.path(name)}"), ("quarantine", "")]
    return _quarantined(board, request, name, outcomes, trail, title=f"{name}: quarantine", outcomes=[])


def batch(board: Board, request: Request) -> Response:
    name, of = board.named(request), request.path_params["batch"]
    if not NAME.fullmatch(of):
        raise NotFound("no batch of that name has been validated")
    outcomes = batch_records.of_batch(board.store, name, of)
    trail = [(name, f"/p/{pages.path(name)}"), (of, "")]
    return _quarantined(board, request, name, outcomes[:1], trail, title=of, outcomes=outcomes)


def _quarantined(
    board: Board, request: Request, name: str, of: list[Any], trail: list[tuple[str, str]], **view: Any
) -> Response:
    """A page about quarantined rows: of one batch, or of all."""
    counts = batch_records.rules(of)
    asked = request.query_params.get("rule")
    only = asked if asked in counts else None
    rows = range(counts.total() if only is None else counts[only])
    page, count, some = _paged(request, rows, EXAMPLES_OF_A_PAGE)
    found, damage = batch_records.quarantined(board.store, of, only, some.start, len(some))
    contents = landed_content.found(board.store, name, found)
    shown = [(row, *_shown(name, row, contents.get(row.sha256 or ""))) for row in found]
    texts = sum(text is not None for _, _, text in shown) > sum(link is not None for _, link, _ in shown)
    return board.page(
        "batch.html.j2", trail, rows=shown, texts=texts, damage=damage, page=page, pages=count, here=request.url.path,
        rules=counts.most_common(), only=only, **view,
    )  # fmt: skip


def _shown(pipeline: str, row: batch_records.Row, content: Content | None) -> tuple[str | None, str | None]:
    """(the address of the row's file, where that may be a picture; the beginning of its text)."""
    text, of = (content.text, content.batch) if content else (None, row.batch)
    if text is not None or of is None or not row.sha256 or not DIGEST.fullmatch(row.sha256):
        return None, text
    base = f"/p/{pages.path(pipeline)}/batches/{pages.path(of)}/files/{row.sha256}"
    return f"{base}?source={pages.path(row.source)}", None


def landed_file(board: Board, request: Request) -> Response:
    name, of, digest = (request.path_params[key] for key in ("name", "batch", "digest"))
    if not (NAME.fullmatch(name) and NAME.fullmatch(of) and DIGEST.fullmatch(digest)):
        raise NotFound("no such file was landed")
    data, kind = landed_pictures.landed(board.store, name, of, digest, request.query_params.get("source", ""))
    return Response(data, headers=PICTURE, media_type=kind)


def report(board: Board, request: Request) -> Response:
    name, run_id = request.path_params["name"], request.path_params["run_id"]
    if not (NAME.fullmatch(name) and RUN_ID.fullmatch(run_id)):
        raise NotFound("no finished run has that id")
    data = board.store.get(store_keys.run_key(name, run_id, "report.html"))
    return Response(data, headers=REPORT, media_type=HTML)


def holdout(board: Board, request: Request) -> Response:
    name, run_id = board.named(request), request.path_params["run_id"]
    run = board.run(name, run_id)
    which = holdout_examples.UNCERTAIN if request.query_params.get("show") == "uncertain" else holdout_examples.WRONG
    every = holdout_examples.predictions(board.store, name, run_id)
    page, count, some = _paged(request, holdout_examples.chosen(every, which), EXAMPLES_OF_A_PAGE)
    damage: list[str] = []
    shown = board.shown(damage, name, run.version, [each.example_id for each in some])
    return board.page(
        "holdout.html.j2", [(name, f"/p/{pages.path(name)}"), ("holdout", "")], p=name, run=run, which=which,
        found=some, shown=shown, texts=any(each.text is not None for each in shown.values()), damage=damage,
        total=len(every), wrong=sum(not each.right for each in every), page=page, pages=count, here=request.url.path,
    )  # fmt: skip


def decide(board: Board, request: Request, body: bytes) -> Response:
    """What became of a decision from the form of a pipeline's page; the next page is that of the pipeline."""
    form = decisions.parsed(request.headers, body, board.keys)  # first of all: nothing else is told without a key
    name, run_id = board.named(request), request.path_params["run_id"]
    config = decisions.configured(board.configs, name)
    if config is None or not RUN_ID.fullmatch(run_id):
        raise NotFound("this server has no YAML of the pipeline, or there is no such run")
    trail = [(name, f"/p/{pages.path(name)}"), ("decision", "")]
    try:
        document = decisions.decide(board.store, config, run_id, form)
    except StoreUnreachable:
        raise
    except LeptonflowError as error:
        return board.page("problem.html.j2", trail, 409, title="Not decided", line=error.line())
    line = f"{document['sentence']}. The champion is {document['champion'] or 'none'}."
    return board.page("problem.html.j2", trail, title=f"Run {run_id}: {document['outcome']}", line=line)


def drift_look(board: Board, request: Request) -> Response:
    name = board.named(request)
    found = drift_records.numbered(board.store, name, request.path_params["number"])
    return Response(drift_page.render(found, f"/p/{pages.path(name)}"), headers=REPORT, media_type=HTML)


def study_page(board: Board, request: Request) -> Response:
    name, study, file = (request.path_params[key] for key in ("name", "study", "file"))
    if not (NAME.fullmatch(name) and NAME.fullmatch(study) and STUDY_PAGE.fullmatch(file)):
        raise NotFound("no study has that page")
    data = board.store.get(store_keys.study_key(name, study, file))
    return Response(data, headers=REPORT, media_type=HTML)


def _studies(store: Store, pipeline: str) -> list[tuple[str, str]]:
    """Each study and the name of its newest page."""
    prefix = store_keys.studies_folder(pipeline)
    found = {}
    for key in store.keys(prefix):
        study, _, file = key.removeprefix(f"{prefix}/").partition("/")
        if STUDY_PAGE.fullmatch(file):
            found[study] = file
    return list(found.items())


def _paged(request: Request, found: Any, size: int) -> tuple[int, int, Any]:
    """(the page that is asked for, how many there are, what is on it); a number that is none is the first page."""
    asked = request.query_params.get("page", "1")
    count = max(1, -(-len(found) // size))
    page = min(int(asked), count) if re.fullmatch(r"[1-9]\d{0,8}", asked) else 1
    return page, count, found[(page - 1) * size : page * size]
