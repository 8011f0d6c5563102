"""Which address is whose page, and what is said where one cannot be shown. Nothing needs a script.

What does not belong here: the pages (views).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.errors import Damaged, LeptonflowError, NotFound, StoreUnreachable, UsageError
from serving.board import decisions, views
from serving.board.views import Board
from serving.problems import Problem
from serving.request_bodies import read

Page = Callable[[Board, Request], Response]


def routes(board: Board) -> list[Route]:
    """The routes of the pages of that board."""
    found = [
        Route(address, _answering(board, page), methods=["GET"])
        for address, page in (
            ("/", views.overview),
            ("/board.css", views.style),
            ("/p/{name}", views.pipeline),
            ("/p/{name}/compare", views.compare),
            ("/p/{name}/quarantine", views.quarantine),
            ("/p/{name}/batches/{batch}", views.batch),
            ("/p/{name}/batches/{batch}/files/{digest}", views.landed_file),
            ("/p/{name}/runs/{run_id}/report.html", views.report),
            ("/p/{name}/runs/{run_id}/holdout", views.holdout),
            ("/p/{name}/monitoring/{number:int}.html", views.drift_look),
            ("/p/{name}/studies/{study}/{file}", views.study_page),
        )
    ]

    async def decided(request: Request) -> Response:
        try:
            body = await read(request, decisions.LARGEST)
        except Problem as problem:
            return board.refused(problem)
        return await run_in_threadpool(
            _answering(board, lambda board, request: views.decide(board, request, body)), request
        )

    return [*found, Route("/p/{name}/runs/{run_id}/decision", decided, methods=["POST"])]


def warm(board: Board, looked: threading.Event) -> None:
    """Read what the pages keep, in a thread. looked: set once the champions were looked for, and loaded."""

    def work() -> None:
        looked.wait()
        board.warm()

    threading.Thread(target=work, name="board", daemon=True).start()


def _answering(board: Board, page: Page) -> Callable[[Request], Response]:
    """The page of this board; what goes wrong is a page too, which says why."""

    def answer(request: Request) -> Response:
        try:
            return page(board, request)
        except Problem as problem:
            return board.refused(problem)
        except StoreUnreachable as error:
            return board.problem(503, "The store cannot be reached", error.line())
        except (NotFound, UsageError) as error:
            return board.problem(404, "Not found", error.line())
        except Damaged as error:
            return board.problem(500, "A record is damaged", error.line())
        except LeptonflowError as error:
            return board.problem(500, "This cannot be shown", error.line())

    return answer
