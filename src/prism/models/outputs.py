"""What a model's output becomes before it travels: whole, its logits, their best, or an embedding.

`settle_form` decides once, where the request comes in, and says no there. What it returns holds
everything, so that nodes need no file for it; on them a `Reduction` makes the form.

How a sample is pooled, unless the caller says otherwise:

| model | vector |
|---|---|
| with `modules.json` beside it | as sentence-transformers would |
| CLIP with projection | `image_embeds`, `text_embeds` |
| ViT, DeiT, DINOv2, CLIP, SigLIP whose class has a `pooler_output` | that |
| the same with another head | the class token; SigLIP, which has none: the mean of all patches |
| any other text model, Whisper's encoder | the mean of the last hidden state over real tokens |
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, NamedTuple, get_args

import torch
from transformers.utils.generic import ModelOutput

from prism.errors import RequestError
from prism.models.inputs import main_input, token_mask
from prism.models.load import ModelInfo
from prism.models.pooling import Pooling
from prism.models.pooling_files import pooling_of_files
from prism.output_form import POOLER, NeededRows, OutputForm

_EMBEDS = {"image_embeds", "text_embeds"}
_POOLED_FIELDS = (*sorted(_EMBEDS), "pooler_output")
_HIDDEN = "last_hidden_state"


class TopK(NamedTuple):
    """The highest logits of every row that a model gives, the highest first.

    Attributes:
        values: the logits, `(B, k)` of a classifier, `(B, N, k)` of a model with one row per token.
        indices: of the class, or of the token in the vocabulary; of the same shape.
        probabilities: softmax over all logits of the row, or sigmoid where labels do not exclude
            each other; None for a model that gives one number.
    """

    values: torch.Tensor
    indices: torch.Tensor
    probabilities: torch.Tensor | None


def settle_form(info: ModelInfo, form: OutputForm) -> OutputForm:
    """Check that a model has what is wanted; return the form with all that nodes must know.

    Raises:
        RequestError: it has not; says what is possible.
    """
    found = _fields(info)
    name = info.architecture.__name__
    if form.kind in ("logits", "top_k") and found and "logits" not in found:
        raise RequestError(
            f"{name} gives {', '.join(found)} and no logits; use output='full' or 'pooled', or a "
            f"model with a head"
        )
    if form.kind != "pooled":
        return form
    if not form.modes:
        own = pooling_of_files(info.files) or OutputForm("pooled", modes=(_usual_mode(info),))
        form = replace(own, normalise=own.normalise or form.normalise)
    if form.modes == (POOLER,) and found and not set(_POOLED_FIELDS) & set(found):
        raise RequestError(
            f"{name} gives {', '.join(found)} and pools nothing itself; use output='pooled:mean'"
        )
    # Behind Whisper's encoder may come a decoder, whose output says nothing of the whole sample.
    of_decoder = _HIDDEN not in found or "encoder_last_hidden_state" in found
    if main_input(info) == "input_features" and found and of_decoder:
        raise RequestError(
            f"pooling is not defined for {name}; use output='full', or WhisperEncoder"
        )
    return form


def pooled_width(info: ModelInfo, form: OutputForm) -> int:
    """Return how many numbers a pooled vector has; `form` comes from `settle_form`."""
    if form.modes != (POOLER,):
        return _width(info) * len(form.modes)
    projected = bool(_EMBEDS & set(_fields(info)))
    return int(info.config.projection_dim) if projected else info.shape.hidden


def _width(info: ModelInfo) -> int:
    """Return the width of the last hidden state; some OPT models project it down."""
    return int(getattr(info.config, "word_embed_proj_dim", None) or info.shape.hidden)


def _usual_mode(info: ModelInfo) -> str:
    found = _fields(info)
    if _EMBEDS & set(found):
        return POOLER
    images = main_input(info) == "pixel_values"
    if (images or info.family.name == "clip_text") and "pooler_output" in found:
        return POOLER
    return "cls" if images and info.family.image_tokens else "mean"


def _fields(info: ModelInfo) -> tuple[str, ...]:
    """Return the fields of a model's output, empty where its class does not say."""
    architecture: Any = info.architecture
    return _returned(architecture)


@cache
def _returned(architecture: Any) -> tuple[str, ...]:
    """Read what a class of transformers returns from its annotation."""
    annotation = inspect.signature(architecture.forward).return_annotation
    for each in get_args(annotation) or (annotation,):
        if isinstance(each, type) and issubclass(each, ModelOutput):
            output_class: Any = each
            return tuple(field.name for field in fields(output_class))
    return ()


class Reduction:
    """Makes the form that a caller wants of a model's output, on the node that has it.

    Args:
        info: the model.
        form: from `settle_form`.
        inputs: of the request, checked.

    Attributes:
        pooling: how rows are pooled; None where nothing is, or the model does it.
        base_only: whether the output of the model without its head is enough.
    """

    def __init__(self, info: ModelInfo, form: OutputForm, inputs: Mapping[str, Any]) -> None:
        self._info = info
        self._form = form
        self._inputs = inputs
        self.pooling: Pooling | None = None
        if form.kind == "pooled" and form.modes != (POOLER,):
            real_BN = token_mask(main_input(info), inputs.get("attention_mask"))
            self.pooling = Pooling(form.modes, form.normalise, real_BN)
        found = _fields(info)
        self.base_only = self.pooling is not None and bool(found) and _HIDDEN not in found

    def __call__(self, output: Any) -> Any:
        """Return what travels: a tensor, or a model's output, or a dict of tensors.

        Raises:
            RequestError: the output lacks what is wanted.
        """
        if self._form.kind == "full":
            return output
        if self._form.kind == "pooled":
            return self._pooled(output)
        logits = self._field(output, "logits")
        if self._form.kind == "logits":
            return type(output)(logits=logits)
        return top_k(self._info, logits, self._form.k)._asdict()

    def hidden(self, output: Any) -> torch.Tensor:
        """Return the last hidden state.

        Raises:
            RequestError: the output has none.
        """
        return self._field(output, _HIDDEN)

    def rows(self) -> NeededRows:
        """Return which rows of the last block it is made of."""
        family, pooling = self._info.family, self.pooling
        if pooling is not None:
            if family.causal and not family.tail_rows:
                return NeededRows()  # what follows the blocks counts on all rows
            if _width(self._info) != self._info.shape.hidden:
                return NeededRows()  # and here it changes their width
            if pooling.needs_first_row_only():
                return NeededRows(first=1)
            return NeededRows(parts=len(pooling.modes))
        first_row_only = self._info.architecture.__name__ in family.first_row_classes
        if self._form.kind == "pooled":  # by the model itself: SigLIP and CLIP's text need all rows
            first_row_only = not family.causal and family.name != "siglip_vision"
        if first_row_only:
            return NeededRows(first=1)
        keep = self._inputs.get("logits_to_keep")
        return NeededRows(
            last=keep if family.tail_rows and isinstance(keep, int) and keep else None
        )

    def _pooled(self, output: Any) -> torch.Tensor:
        if self.pooling is not None:
            return self.pooling.whole(self.hidden(output))
        found = [output.get(name) for name in _POOLED_FIELDS if output.get(name) is not None]
        if not found:
            raise self._lacks(output, "a pooled vector")
        pooled: torch.Tensor = found[0].float()
        return torch.nn.functional.normalize(pooled, dim=-1) if self._form.normalise else pooled

    def _field(self, output: Any, name: str) -> torch.Tensor:
        value: torch.Tensor | None = output.get(name)
        if value is None:
            raise self._lacks(output, name)
        return value

    def _lacks(self, output: Any, what: str) -> RequestError:
        name = self._info.architecture.__name__
        return RequestError(f"{name} gave {', '.join(output)} and not {what}; use output='full'")


def top_k(info: ModelInfo, logits: torch.Tensor, k: int) -> TopK:
    """Return the `k` highest of the last dimension, or all where there are fewer."""
    values, indices = logits.topk(min(k, logits.shape[-1]), dim=-1)
    if logits.shape[-1] == 1:  # a regression: the softmax of one value says nothing
        return TopK(values, indices, None)
    if getattr(info.config, "problem_type", None) == "multi_label_classification":
        return TopK(values, indices, values.float().sigmoid())
    total = logits.float().logsumexp(-1, keepdim=True)
    return TopK(values, indices, (values.float() - total).exp())


def as_answer(form: OutputForm, output: Any) -> Any:
    """Return what the caller gets of what came from the nodes, joined."""
    return TopK(**output) if form.kind == "top_k" else output
