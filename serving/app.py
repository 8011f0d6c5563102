"""The HTTP application: its routes, and what lives as long as it does.

`app.state`: store, services by the pipelines' names, keys, decoders, explainer, recorder, metrics; hung: the pipelines
whose model never ended. What a route does does not belong here (predictions, inference_protocol, probes, labels).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leptonflow.registry import serving_decisions
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from serving import api_description, api_keys, inference_protocol, labels, predictions, probes
from serving.access import Access, Rules
from serving.board import router
from serving.board.views import Board
from serving.candidates import POLL as POLL_CANDIDATES
from serving.candidates import Candidates
from serving.champion_watch import POLL, Watch
from serving.explaining import explainer
from serving.metrics import Metrics
from serving.predicting import decoders
from serving.problems import response, told
from serving.service import Log, Service

CLOSE_SECONDS = 5.0  # for what still waits for the models when the last request is answered


@dataclass(frozen=True)
class Options:
    """How the application is run.

    rules    who may ask
    pin      the version that is served, with who decided it and why; None: the champion
    poll     seconds between two looks at the promotions logs; poll_candidates: for shadows and canaries
    say      told what happens, a line each
    """

    rules: Rules = field(default_factory=lambda: Rules({}, None))
    pin: serving_decisions.Pin | None = None
    poll: float = POLL
    poll_candidates: float = POLL_CANDIDATES
    say: Callable[[str], None] = print


def create_app(
    store: Store, pipelines: Sequence[Pipeline], options: Options | None = None, log: Log | None = None
) -> Starlette:
    """The application over that store. It loads nothing before it is started; `log` is closed when it ends."""
    options = options or Options()
    version = options.pin.version if options.pin else None
    services = {config.name: Service(config, log, version) for config in pipelines}
    looked, board = threading.Event(), Board(store, services, options.rules.keys)

    def pinned(service: Service) -> None:
        if options.pin is not None:
            serving_decisions.record(store, service.name, options.pin)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watch = Watch(store, list(services.values()), options.say, pinned, options.poll, looked)
        candidates = Candidates(store, list(services.values()), options.say, options.poll_candidates)
        watch.start()
        candidates.start()
        keys = asyncio.create_task(api_keys.follow(options.rules.keys, options.say))
        router.warm(board, looked)
        try:
            yield
        finally:
            keys.cancel()
            candidates.stop()
            app.state.hung = await asyncio.to_thread(_close, watch, list(services.values()), log)
            for pool in (app.state.decoders, app.state.explainer, app.state.recorder):
                pool.shutdown(wait=False, cancel_futures=True)

    app = Starlette(
        routes=[*_routes(), *router.routes(board)], lifespan=lifespan,
        middleware=[Middleware(Access, rules=options.rules)], exception_handlers={HTTPException: _refused},
    )  # fmt: skip
    app.state.store, app.state.services, app.state.hung = store, services, []
    app.state.keys, app.state.probe = options.rules.keys, None
    app.state.explainer, app.state.recorder = explainer(), labels.recorder()
    app.state.decoders, app.state.metrics = decoders(), Metrics(list(services.values()), log)
    return app


def _close(watch: Watch, services: Sequence[Service], log: Log | None) -> list[str]:
    """After the last request was answered: what still waits is predicted, then the log is written.

    The pipelines whose model hangs: nothing ends a thread, and the process must not wait for it.
    """
    watch.stop()
    until = time.monotonic() + CLOSE_SECONDS
    hung = [each.name for each in services if not each.batcher.close(max(0.0, until - time.monotonic()))]
    if log is not None:
        log.close()
    return hung


def _routes() -> list[Route]:
    """What they take and give is described by api_description. The first that fits is taken: busy ones first."""
    routes: dict[str, tuple[str, Any]] = {
        "/v1/{pipeline}/predict": ("POST", predictions.predict),
        "/v2/models/{pipeline}/infer": ("POST", inference_protocol.infer),
        "/v1/{pipeline}/labels": ("POST", labels.give),
        "/healthz": ("GET", probes.healthz),
        "/readyz": ("GET", probes.readyz),
        "/metrics": ("GET", probes.metrics),
        "/v1": ("GET", predictions.listing),
        "/v1/{pipeline}": ("GET", predictions.show),
        "/v2": ("GET", inference_protocol.server),
        "/v2/health/live": ("GET", inference_protocol.live),
        "/v2/health/ready": ("GET", probes.readyz),
        "/v2/models/{pipeline}": ("GET", inference_protocol.model),
        "/v2/models/{pipeline}/ready": ("GET", inference_protocol.model_ready),
        "/v2/models/{pipeline}/versions/{version}": ("GET", inference_protocol.model),
        "/v2/models/{pipeline}/versions/{version}/ready": ("GET", inference_protocol.model_ready),
        "/v2/models/{pipeline}/versions/{version}/infer": ("POST", inference_protocol.infer),
        "/openapi.json": ("GET", api_description.document),
        "/docs": ("GET", api_description.page),
    }
    return [Route(path, endpoint, methods=[method]) for path, (method, endpoint) in routes.items()]


async def _refused(request: Request, error: Exception) -> Response:
    """What no route takes, in the words of every other error."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")  # of a path that is there, but not by this method
    problem = told(
        error.status_code, str(error.detail), expected=allowed, received=request.method if allowed else None,
        hint="/docs lists what there is",
    )  # fmt: skip
    problem.headers.update(error.headers or {})
    return response(problem, path=request.url.path)
