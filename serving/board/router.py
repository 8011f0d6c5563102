"""Which address is whose page, and what is said where one cannot be shown. Nothing needs a script.

What does not belong here: the pages (views).
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from leptonflow.storage.store import Store
from schemas.errors import Damaged, LeptonflowError, NotFound, StoreUnreachable, UsageError
from serving.api_keys import Keys
from serving.board import decisions, views
from serving.board.views import Board
from serving.problems import Problem
from serving.request_bodies import read
from serving.service import Service

Page = Callable[[Board, Request], Response]


def make(store: Store, services: Mapping[str, Service], keys: Keys, looked: threading.Event) -> APIRouter:
    """The router of the pages of that store. Plain routes: they are not of the interface that is described.

    looked: set once the champions were looked for, and loaded; what the pages keep is read after that.
    """
    board = Board(store, services, keys)

    def warm() -> None:
        looked.wait()
        board.warm()

    @asynccontextmanager
    async def warmed(app: Any) -> AsyncIterator[None]:
        threading.Thread(target=warm, name="board", daemon=True).start()
        yield

    router = APIRouter(lifespan=warmed)
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
    ):
        router.add_route(address, _answering(board, page), methods=["GET"], include_in_schema=False)

    async def decided(request: Request) -> Response:
        body = await read(request, decisions.LARGEST)
        return await run_in_threadpool(
            _answering(board, lambda board, request: views.decide(board, request, body)), request
        )

    router.add_route("/p/{name}/runs/{run_id}/decision", decided, methods=["POST"], include_in_schema=False)
    return router


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
