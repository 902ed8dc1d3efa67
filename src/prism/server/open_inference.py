"""The Open Inference Protocol, version 2, over HTTP: health, metadata, inference.

What a request may ask for besides its tensors stands in `parameters`, and what its answer cost in
those of the response; `infer_response.cost_of` says what each is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from prism.output_form import OutputForm
from prism.server.context import Context
from prism.server.errors import Refusal
from prism.server.infer_request import InferRequest, read_request
from prism.server.infer_response import VERSION, check_outputs, make_response, tensors_of
from prism.server.open_inference_schema import INFER
from prism.server.parameters import wish_of
from prism.server.served import Served
from prism.server.work import Wish
from prism.version import VERSION as SERVER_VERSION

_LENGTH = "Inference-Header-Content-Length"
_EXTENSIONS = ("binary_tensor_data", "classification")
_TIMEOUT = "timeout"  # the protocol's own word for a deadline, in microseconds
# Reading or writing more than this goes to a thread, so that others need not wait for it.
_MOST_INLINE_BYTES = 1 << 20

_T = TypeVar("_T")


def router(context: Context) -> APIRouter:
    """Return the routes below `/v2`."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    _add_health(routes, context)
    for prefix in ("/models/{name}", "/models/{name}/versions/{version}"):
        _add_model(routes, context, prefix)
    return routes


def _add_health(routes: APIRouter, context: Context) -> None:
    @routes.get("")
    async def server_metadata() -> dict[str, Any]:
        """Return what this server is."""
        return {"name": "prism", "version": SERVER_VERSION, "extensions": list(_EXTENSIONS)}

    @routes.get("/health/live")
    async def live() -> dict[str, bool]:
        """Return that the server runs."""
        return {"live": True}

    @routes.get("/health/ready", responses={503: {"description": "Some model cannot answer."}})
    async def ready() -> JSONResponse:
        """Return whether every model can answer, even if by one node alone."""
        return _readiness(context, *context.models.values())


def _add_model(routes: APIRouter, context: Context, prefix: str) -> None:
    @routes.get(prefix)
    async def model_metadata(name: str, version: str = VERSION) -> dict[str, Any]:
        """Return the tensors that a model takes and gives."""
        served = _found(context, name, version)
        return {
            "name": served.name,
            "versions": [VERSION],
            "platform": f"prism_{served.info.architecture.__name__}",
            "inputs": [spec.to_dict() for spec in served.inputs],
            "outputs": [spec.to_dict() for spec in served.outputs],
        }

    @routes.get(f"{prefix}/ready", responses={503: {"description": "It cannot answer."}})
    async def model_ready(name: str, version: str = VERSION) -> JSONResponse:
        """Return whether a model can answer, even if by one node alone."""
        return _readiness(context, _found(context, name, version))

    @routes.post(f"{prefix}/infer", openapi_extra=INFER)
    async def infer(request: Request, name: str, version: str = VERSION) -> Response:
        """Run a model on tensors, in JSON or behind it as binary data."""
        served = _found(context, name, version)
        return await _infer(context, served, request)


def _found(context: Context, name: str, version: str) -> Served:
    served = context.models.find(name)
    if version != VERSION:
        raise Refusal(f"{name} has no version {version[:40]!r}; it has {VERSION}", 404)
    return served


def _readiness(context: Context, *models: Served) -> JSONResponse:
    lacking = [each.name for each in models if not each.ready]
    if context.closing.begun:
        return JSONResponse({"ready": False, "error": "the server closes"}, 503)
    if lacking:
        error = f"no node can answer for {', '.join(lacking)}"
        return JSONResponse({"ready": False, "error": error}, 503)
    return JSONResponse({"ready": True})


async def _infer(context: Context, served: Served, request: Request) -> Response:
    body = await request.body()
    asked = await _aside(
        len(body),
        lambda: read_request(
            body, request.headers.get(_LENGTH), served.inputs, context.settings.most_json_bytes
        ),
    )
    wish = _wish(context, asked, request)
    check_outputs(served, wish.output, asked.outputs)
    inputs = {name: torch.from_numpy(array) for name, array in asked.inputs.items()}
    answered = await context.batchers[served.name].infer(inputs, wish)
    size = sum(each.nbytes for each in tensors_of(answered.output).values())
    made = await _aside(size, lambda: make_response(served, asked, answered))
    if made.header_length is None:
        return Response(made.body, media_type="application/json")
    return Response(
        made.body,
        headers={_LENGTH: str(made.header_length)},
        media_type="application/octet-stream",
    )


def _wish(context: Context, asked: InferRequest, request: Request) -> Wish:
    """Return what a request wants; no more of the output than it names has to travel."""
    parameters = dict(asked.parameters)
    timeout_us = parameters.pop(_TIMEOUT, None)
    if timeout_us is not None and "deadline_ms" not in parameters:
        numeric = isinstance(timeout_us, (int, float)) and not isinstance(timeout_us, bool)
        parameters["deadline_ms"] = timeout_us / 1e3 if numeric else timeout_us
    wish = wish_of(parameters, context.settings.objective, context.client_of(request))
    if "output" not in parameters and {each.name for each in asked.outputs} == {"logits"}:
        return replace(wish, output=OutputForm("logits"))
    return wish


async def _aside(nbytes: int, work: Callable[[], _T]) -> _T:
    """Do something that takes long for many bytes where it keeps nobody else waiting."""
    return await asyncio.to_thread(work) if nbytes > _MOST_INLINE_BYTES else work()
