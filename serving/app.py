"""The HTTP application: its routes, and what lives as long as it does.

How a model is watched, loaded and called does not belong here.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response

from leptonflow.storage.store import Store
from schemas.config import Pipeline
from serving import labels


def create_app(store: Store, pipelines: Sequence[Pipeline]) -> FastAPI:
    """The application over that store. Its state: `store`, `pipelines` by their names."""
    app = FastAPI(title="leptonflow", docs_url=None, redoc_url=None)
    app.state.store = store
    app.state.pipelines = {config.name: config for config in pipelines}
    app.add_api_route("/healthz", healthz, methods=["GET"], summary="The process runs")
    app.include_router(labels.router)
    _include_pages(app)
    return app


def _include_pages(app: FastAPI) -> None:
    """The routers of the pages: `app.include_router(...)` of serving.board belongs here."""


async def healthz() -> Response:
    return PlainTextResponse("ok\n")
