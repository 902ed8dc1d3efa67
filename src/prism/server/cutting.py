"""The output of a batch, cut back for each of its requests: own rows, and no padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils.generic import ModelOutput

from prism.models.outputs import TopK

# Fields of text models with a value per token, and the dimensions that count tokens.
_TOKENS = {
    "last_hidden_state": (1,),
    "hidden_states": (1,),
    "encoder_last_hidden_state": (1,),
    "start_logits": (1,),
    "end_logits": (1,),
    "attentions": (2, 3),
}
# Of these, those with three dimensions have a row per token.
_LOGITS = {"logits", "values", "indices", "probabilities", "prediction_logits"}
# One vector per sample, however long it is.
_PER_SAMPLE = {"pooler_output", "text_embeds", "image_embeds"}


class Uncuttable(Exception):  # noqa: N818 - no error of a request: it is answered alone
    """An output of which nobody can say which part belongs to which request."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of one request in the output of a batch.

    Attributes:
        start, stop: its rows.
        rows: of the batch.
        tokens: of its texts.
        length: to which they were padded; 0 = nothing was.
    """

    start: int
    stop: int
    rows: int
    tokens: int = 0
    length: int = 0

    def of(self, output: Any) -> Any:
        """Return what of an output belongs to the request, in the same form.

        Raises:
            Uncuttable: a field has no rows, or may or may not count tokens.
        """
        if isinstance(output, ModelOutput):
            return type(output)(**self._fields(output))
        if isinstance(output, TopK):
            return TopK(**self._fields(output._asdict()))
        if isinstance(output, Mapping):
            return self._fields(output)
        # A tensor by itself is an embedding.
        return self._cut("pooler_output", output)

    def _fields(self, output: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._cut(name, value) for name, value in output.items()}

    def _cut(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, (list, tuple)):
            return type(value)(self._cut(name, each) for each in value)
        if not isinstance(value, torch.Tensor) or not value.dim() or len(value) != self.rows:
            raise Uncuttable(f"{name} has no rows")
        value = value[self.start : self.stop]
        if not self.length or name in _PER_SAMPLE:
            return value
        for dimension in self._token_dimensions(name, value):
            value = value.narrow(dimension, 0, self.tokens)
        return value

    def _token_dimensions(self, name: str, value: torch.Tensor) -> tuple[int, ...]:
        if name in _LOGITS:
            return (1,) if value.dim() == 3 else ()
        if name not in _TOKENS and self.length in value.shape[1:]:
            raise Uncuttable(f"a dimension of {name} may count tokens")
        return _TOKENS.get(name, ())
