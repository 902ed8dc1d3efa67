"""`POST /v1/embeddings`: texts in, one vector each, as OpenAI's clients know it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch

from prism.errors import DeadlineExceeded, RequestError
from prism.models.load import ModelInfo
from prism.models.outputs import pooled_width, settle_form
from prism.models.pooling_files import text_settings_of_files
from prism.models.processing import reads_images
from prism.output_form import OutputForm
from prism.server.documents import Fields
from prism.server.errors import BadRequest
from prism.server.settings import Settings
from prism.server.texts import Ids, TextReader
from prism.server.work import Answered, Wish

MOST_INPUTS = 2048
# Texts that are read together; between two such parts other requests have their turn.
_PART_ROWS = 32
_MOST_PARTS_AT_ONCE = 4

Infer = Callable[[dict[str, torch.Tensor], Wish], Awaitable[Answered]]


@dataclass(frozen=True, slots=True)
class EmbeddingsQuestion:
    """What a client asks.

    Attributes:
        model: name of it; None = the only one.
        texts: to embed; or else
        ids: the same as token ids.
        as_base64: whether vectors come as base64 of little-endian float32, not as numbers.
        dimensions: that the client expects of a vector; None = whatever there are.
        truncate: whether texts that are too long are cut.
        cut_at: tokens to cut at; None = what the model takes.
        parameters: how to run it.
    """

    model: str | None
    texts: tuple[str, ...]
    ids: tuple[Ids, ...]
    as_base64: bool
    dimensions: int | None
    truncate: bool
    cut_at: int | None
    parameters: dict[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> EmbeddingsQuestion:
        """Read the document of a request.

        Raises:
            BadRequest: a field is missing, unknown, or of the wrong kind.
        """
        fields = Fields(document)
        texts, ids = _inputs(fields.take("input"))
        truncate = fields.boolean("truncate")
        cut_at = fields.integer("truncate_prompt_tokens")
        question = cls(
            model=fields.text("model"),
            texts=texts,
            ids=ids,
            as_base64=fields.choice("encoding_format", ("float", "base64")) == "base64",
            dimensions=fields.integer("dimensions"),
            truncate=bool(truncate) or cut_at is not None,
            cut_at=cut_at,
            parameters=fields.mapping("parameters"),
        )
        fields.text("user")  # OpenAI's word for whom a client asks for; nothing depends on it
        fields.end()
        return question


def _inputs(given: Any) -> tuple[tuple[str, ...], tuple[Ids, ...]]:
    """Return the texts, or the token ids, that a request holds."""
    if isinstance(given, str):
        return (given,), ()
    if isinstance(given, list) and given:
        if all(isinstance(each, str) for each in given):
            texts = tuple(given)
            return _bounded(texts), ()
        if _are_ids(given):
            return (), (given,)
        if all(isinstance(each, list) and _are_ids(each) for each in given):
            return (), _bounded(tuple(given))
    raise BadRequest(
        "input must be a text, a list of texts, a list of token numbers, or a list of such lists, "
        "and not empty"
    )


def _are_ids(values: list[Any]) -> bool:
    return all(type(each) is int for each in values)


def _bounded(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(inputs) > MOST_INPUTS:
        raise BadRequest(
            f"input has {len(inputs)} texts; at most {MOST_INPUTS} are taken at once, send the "
            f"rest in another request"
        )
    return inputs


class EmbeddingModel:
    """How one model reads texts and gives vectors.

    Args:
        info: the model.

    Attributes:
        form: how its vectors are made.
        width: numbers of a vector.
        reader: of its texts.

    Raises:
        RequestError: it reads no text, has no vectors to give, or its files are broken.
    """

    def __init__(self, info: ModelInfo) -> None:
        if reads_images(info):
            raise RequestError(
                f"{info.source} reads images, not text; name a model that reads text"
            )
        self.form: OutputForm = settle_form(info, OutputForm("pooled"))
        self.width = pooled_width(info, self.form)
        self.reader = TextReader(info, text_settings_of_files(info.files))

    def rows(self, question: EmbeddingsQuestion, first: int) -> list[Ids]:
        """Return the token ids of one part of a question, which begins at text `first`.

        Raises:
            BadRequest: one of them cannot be used; says which.
        """
        cut_at = self.reader.cut_at(question.cut_at) if question.truncate else None
        part = slice(first, first + _PART_ROWS)
        if question.ids:
            return [
                self.reader.take(ids, number, cut_at)
                for number, ids in enumerate(question.ids[part], start=first + 1)
            ]
        return self.reader.read(question.texts[part], first + 1, cut_at)

    def check_dimensions(self, asked: int | None) -> None:
        """Check that a client expects what the model gives.

        Raises:
            BadRequest: it expects another size.
        """
        if asked not in (None, self.width):
            raise BadRequest(
                f"dimensions is {str(asked)[:20]}, the model's vectors have {self.width} numbers "
                f"and are not cut; leave dimensions out"
            )


def part_starts(question: EmbeddingsQuestion) -> range:
    """Return at which inputs the parts of a question begin."""
    return range(0, len(question.texts or question.ids), _PART_ROWS)


async def embed(
    model: EmbeddingModel, rows: Sequence[Ids], wish: Wish, infer: Infer, settings: Settings
) -> tuple[torch.Tensor, list[Answered]]:
    """Return the vectors of texts, `(len(rows), width)` of float32, and the answers they came in.

    Texts of about the same length run together. The first error ends all that is under way.

    Args:
        model: how it is done.
        rows: token ids of each text.
        wish: how to run it; its deadline is that of all texts together.
        infer: runs one batch.
        settings: of the server, which say how large a batch and the queue may be.
    """
    clock = asyncio.get_running_loop()
    until_s = None if wish.deadline_s is None else clock.time() + wish.deadline_s
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    most = settings.most_rows
    parts = [order[at : at + most] for at in range(0, len(order), most)]
    # Half of the queue at most, so that a request does not meet itself there.
    turns = asyncio.Semaphore(max(1, min(_MOST_PARTS_AT_ONCE, settings.queue_rows // (2 * most))))

    async def run(part: Sequence[int]) -> Answered:
        async with turns:
            left_s = None if until_s is None else until_s - clock.time()
            if left_s is not None and left_s <= 0:
                raise DeadlineExceeded(
                    f"the texts were not embedded within {wish.deadline_s:.3g} s; send fewer, or "
                    f"give them more time"
                )
            inputs = model.reader.batch([rows[row] for row in part])
            return await infer(inputs, replace(wish, deadline_s=left_s))

    answers = await _together([partial(run, part) for part in parts])
    vectors_BD = torch.empty(len(rows), model.width)
    for part, answered in zip(parts, answers, strict=True):
        vectors_BD[part] = cast(torch.Tensor, answered.output)
    if not bool(torch.isfinite(vectors_BD).all()):
        raise RequestError(
            "the model gave values that are no numbers for these texts; try another plan"
        )
    return vectors_BD, answers


async def _together(works: Sequence[Callable[[], Awaitable[Answered]]]) -> list[Answered]:
    """Return what all give; where one fails, or nobody waits any more, none is left running."""
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def embeddings_document(
    name: str, question: EmbeddingsQuestion, vectors_BD: torch.Tensor, tokens: int
) -> dict[str, Any]:
    """Return the answer in OpenAI's shape.

    Args:
        name: of the model.
        question: what was asked.
        vectors_BD: one per text.
        tokens: that were read, special ones included.
    """
    array_BD = vectors_BD.numpy().astype("<f4", copy=False)
    if question.as_base64:
        vectors: list[Any] = [base64.b64encode(row.tobytes()).decode("ascii") for row in array_BD]
    else:
        vectors = array_BD.tolist()
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
