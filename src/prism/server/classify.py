"""`POST /v1/classify`: one image or text in, the likeliest labels out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

from prism.errors import RequestError
from prism.fidelity.labels import is_classifier
from prism.models.load import ModelInfo
from prism.models.outputs import TopK
from prism.models.processing import image_processor_of, pixels_by, predictions, reads_images
from prism.output_form import OutputForm
from prism.server.documents import Fields
from prism.server.errors import BadRequest
from prism.server.forms import Form
from prism.server.texts import TextReader
from prism.server.uploads import decode_base64, read_image

Number = TypeVar("Number", int, float)

_USUAL_TOP_K = 5
_TEXT_PARAMETERS = ("plan", "objective")
_NUMBER_PARAMETERS = ("max_accuracy_drop", "deadline_ms")


@dataclass(frozen=True, slots=True)
class ClassifyQuestion:
    """What a client asks.

    Attributes:
        model: name of it; None = the only one.
        image: the bytes of an image file; or else
        text: a text. Exactly one of the two is given.
        top_k: how many labels, at most.
        truncate: whether a text that is too long is cut.
        parameters: how to run it.
    """

    model: str | None
    image: bytes | None
    text: str | None
    top_k: int
    truncate: bool
    parameters: dict[str, Any]

    def __post_init__(self) -> None:
        if (self.image is None) == (self.text is None):
            raise BadRequest(
                "send either an image (file in a form, or image as base64 in JSON) or a text"
            )
        if self.top_k < 1:
            raise BadRequest(f"top_k must be at least 1, not {str(self.top_k)[:20]}")

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> ClassifyQuestion:
        """Read a JSON document.

        Raises:
            BadRequest: a field is missing, unknown, or of the wrong kind.
            TooLarge: the image has too many bytes.
        """
        fields = Fields(document)
        model, encoded, text = (fields.text(name) for name in ("model", "image", "text"))
        top_k, truncate = fields.integer("top_k"), fields.boolean("truncate")
        parameters = fields.mapping("parameters")
        fields.end()
        return cls(
            model=model,
            image=None if encoded is None else decode_base64(encoded),
            text=text,
            top_k=_USUAL_TOP_K if top_k is None else top_k,
            truncate=bool(truncate),
            parameters=parameters,
        )

    @classmethod
    def of_form(cls, form: Form) -> ClassifyQuestion:
        """Read a form, whose fields are text; parameters are fields of their own.

        Raises:
            BadRequest: a field is missing, unknown, or cannot be read.
        """
        fields = Fields(form.texts)
        model, text = fields.text("model"), fields.text("text")
        top_k = _number(fields, "top_k", int)
        truncate = fields.choice("truncate", ("true", "false"))
        given: dict[str, Any] = {name: fields.text(name) for name in _TEXT_PARAMETERS}
        given |= {name: _number(fields, name, float) for name in _NUMBER_PARAMETERS}
        fields.end()
        return cls(
            model=model,
            image=form.file,
            text=text,
            top_k=_USUAL_TOP_K if top_k is None else top_k,
            truncate=truncate == "true",
            parameters={name: value for name, value in given.items() if value is not None},
        )


def _number(fields: Fields, name: str, kind: type[Number]) -> Number | None:
    written = fields.text(name)
    if written is None:
        return None
    try:
        return kind(written)
    except ValueError:
        words = "a whole number" if kind is int else "a number"
        raise BadRequest(f"{name} must be {words}, not {written[:50]!r}") from None


class Classifier:
    """How one model reads what it classifies, and names what it says.

    Args:
        info: the model.

    Raises:
        RequestError: it is no classifier, or reads neither images nor text.
    """

    def __init__(self, info: ModelInfo) -> None:
        if not is_classifier(info):
            raise RequestError(
                f"{info.architecture.__name__} is no classifier; name a model whose class is one "
                f"of For...Classification"
            )
        self._info = info
        self._images = reads_images(info)
        self._processor = image_processor_of(info) if self._images else None
        self._reader = TextReader(info)

    def inputs(self, question: ClassifyQuestion) -> dict[str, torch.Tensor]:
        """Return what the model is given for one question.

        Raises:
            BadRequest: the image or the text cannot be read.
            TooLarge: the image is.
            RequestError: the model reads something else.
        """
        if question.image is not None:
            if not self._images:
                raise RequestError(f"{self._info.source} reads text, not images; send a text")
            return pixels_by(self._processor, self._info, [read_image(question.image)])
        if self._images:
            raise RequestError(f"{self._info.source} reads images, not text; send an image")
        cut_at = self._reader.most_tokens if question.truncate else None
        assert question.text is not None
        return self._reader.batch(self._reader.read([question.text], 1, cut_at))

    def form(self, question: ClassifyQuestion) -> OutputForm:
        """Return the form of the output that answers a question."""
        # No more than there are: questions of one form can run together.
        return OutputForm("top_k", k=min(question.top_k, int(self._info.config.num_labels)))

    def labels(self, best: TopK) -> list[dict[str, Any]]:
        """Return the labels of the only row, the likeliest first, as plain JSON types.

        Raises:
            RequestError: the model's scores are no numbers.
        """
        if not bool(torch.isfinite(best.values).all()):
            raise RequestError("the model gave scores that are no numbers; try another plan")
        rows = predictions(self._info, best, {}, best.values.shape[-1])
        return [asdict(each) for each in (rows or [[]])[0]]
