"""The application: all routes behind one gate, and every error in its protocol's shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from prism.errors import PrismError
from prism.server import open_inference, task_routes
from prism.server.batching import Batcher
from prism.server.closing import Closing
from prism.server.context import Context
from prism.server.errors import BadRequest, Refusal, error_document, refusal_of
from prism.server.gate import Gate
from prism.server.metrics import Metrics
from prism.server.served import Models
from prism.server.settings import Settings
from prism.version import VERSION


def create_app(
    models: Models,
    batchers: Mapping[str, Batcher],
    metrics: Metrics,
    settings: Settings,
    closing: Closing | None = None,
) -> FastAPI:
    """Return the application that answers requests.

    Args:
        models: what is served.
        batchers: by name of a model, what answers its requests.
        metrics: shown at `/metrics`.
        settings: limits and defaults.
        closing: told when the server closes; None = nobody tells.
    """
    context = Context(models, batchers, metrics, settings, closing or Closing())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.gather(*(each.drain(settings.drain_s) for each in batchers.values()))

    # The pages that FastAPI makes of the description load scripts from elsewhere.
    app = FastAPI(title="prism", version=VERSION, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Gate, context=context)
    for room in (open_inference, task_routes):
        app.include_router(room.router(context))

    @app.get("/metrics", response_class=Response)
    async def exposition() -> Response:
        """Return all metrics in Prometheus' text format."""
        return Response(metrics.exposition(), headers={"Content-Type": metrics.content_type})

    for kind in (Refusal, PrismError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _refuse)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """Return an error as its protocol tells it."""
    refusal = _refusal(error)
    document = error_document(request.url.path, refusal)
    return JSONResponse(document, refusal.status, refusal.headers)


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, HTTPException):
        return Refusal(str(error.detail), error.status_code, error.headers)
    if isinstance(error, RequestValidationError):
        first: Any = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return BadRequest(f"{place}: {first['msg']}")
    # What is left is a mistake of the server, whose traceback the server writes down.
    return refusal_of(error) or Refusal("the server made a mistake; its log says more", 500)
