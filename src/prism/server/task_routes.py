"""The routes that take texts and images as they are: embeddings, labels, the list of models."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from fastapi import APIRouter, Request, Response

from prism.models.load import ModelInfo
from prism.output_form import OutputForm
from prism.server import task_schemas
from prism.server.classify import Classifier, ClassifyQuestion
from prism.server.context import Context
from prism.server.embeddings import (
    EmbeddingModel,
    EmbeddingsQuestion,
    embed,
    embeddings_document,
    part_starts,
)
from prism.server.errors import BadRequest
from prism.server.forms import is_form, read_form
from prism.server.infer_response import cost_of
from prism.server.json_body import read_object
from prism.server.parameters import wish_of
from prism.server.served import Served
from prism.server.texts import Ids
from prism.server.threads import Threads
from prism.server.work import Wish

Made = TypeVar("Made")


def router(context: Context) -> APIRouter:
    """Return the routes below `/v1`."""
    tasks = Tasks(context)
    routes = APIRouter(prefix="/v1", tags=["tasks"])
    for path, answer, body in (
        ("/embeddings", tasks.embeddings, task_schemas.EMBEDDINGS),
        ("/classify", tasks.classify, task_schemas.CLASSIFY),
    ):
        routes.add_api_route(
            path, answer, methods=["POST"], response_class=Response, openapi_extra=body
        )
    routes.add_api_route("/models", tasks.list_models, methods=["GET"])
    routes.add_api_route("/models/{name}", tasks.one_model, methods=["GET"])
    return routes


class PerModel(Generic[Made]):
    """What is made of a model once, when it is first wanted; any thread may ask.

    Args:
        make: makes it.
    """

    def __init__(self, make: Callable[[ModelInfo], Made]) -> None:
        self._make = make
        self._made: dict[str, Made] = {}
        self._turn = threading.Lock()

    def of(self, served: Served) -> Made:
        """Return it; raises what making it raises."""
        with self._turn:
            if served.name not in self._made:
                self._made[served.name] = self._make(served.info)
            return self._made[served.name]


class Tasks:
    """Answers requests of the task routes.

    Args:
        context: what is served, and by whom.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._threads = Threads()
        self._embedders = PerModel(EmbeddingModel)
        self._classifiers = PerModel(Classifier)
        self._created = int(time.time())

    async def embeddings(self, request: Request) -> Response:
        """Embed texts; the request and the answer have OpenAI's shape."""
        body = await request.body()
        question = await self._threads.run(lambda: EmbeddingsQuestion.of(self._json(body)))
        served = self._served(request, question.model)
        model = await self._threads.run(partial(self._embedders.of, served))
        model.check_dimensions(question.dimensions)
        wish = self._wish(request, question.parameters, model.form)
        rows: list[Ids] = []
        for first in part_starts(question):
            rows += await self._threads.run(partial(model.rows, question, first))
        infer = self._context.batchers[served.name].infer
        vectors_BD, answers = await embed(model, rows, wish, infer, self._context.settings)
        document = embeddings_document(served.name, question, vectors_BD, sum(map(len, rows)))
        slowest = max(answers, key=lambda each: each.record.total_s)
        return _response({**document, "parameters": cost_of(slowest)})

    async def classify(self, request: Request) -> Response:
        """Name what an image shows, or what a text says."""
        question = await self._classify_question(request)
        served = self._served(request, question.model)
        classifier = await self._threads.run(partial(self._classifiers.of, served))
        wish = self._wish(request, question.parameters, classifier.form(question))
        inputs = await self._threads.run(partial(classifier.inputs, question))
        answered = await self._context.batchers[served.name].infer(inputs, wish)
        return _response(
            {
                "object": "classification",
                "model": served.name,
                "labels": classifier.labels(answered.output),
                "parameters": cost_of(answered),
            }
        )

    def list_models(self) -> dict[str, Any]:
        """Return the models of the server in OpenAI's shape."""
        return {"object": "list", "data": [self._listed(each) for each in self._context.models]}

    def one_model(self, name: str) -> dict[str, Any]:
        """Return one model of the server in OpenAI's shape."""
        return self._listed(self._context.models.find(name).name)

    def _listed(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "prism"}

    async def _classify_question(self, request: Request) -> ClassifyQuestion:
        body = await request.body()
        content_type = request.headers.get("content-type", "")

        def read() -> ClassifyQuestion:
            if is_form(content_type):
                return ClassifyQuestion.of_form(read_form(content_type, body))
            return ClassifyQuestion.of_document(self._json(body))

        return await self._threads.run(read)

    def _wish(self, request: Request, parameters: dict[str, Any], form: OutputForm) -> Wish:
        context = self._context
        return wish_of(parameters, context.settings.objective, context.client_of(request), form)

    def _json(self, body: bytes) -> dict[str, Any]:
        return read_object(body, self._context.settings.most_json_bytes)

    def _served(self, request: Request, name: str | None) -> Served:
        """Return the model a request names, or the only one; what is counted needs it too."""
        models = self._context.models
        if name is None:
            if len(models) > 1:
                raise BadRequest(f"name a model; this server has {', '.join(models)}")
            name = next(iter(models))
        served = models.find(name)
        request.state.model = served.name
        return served


def _response(document: dict[str, Any]) -> Response:
    return Response(json.dumps(document, allow_nan=False), media_type="application/json")
