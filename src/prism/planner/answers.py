"""Bytes of an answer in the form that a caller wants it, beside the whole one that was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from prism.output_form import Kind, OutputForm
from prism.perfmap import Payload
from prism.plan import ModelShape

_FLOAT32_BYTES = 4
# Logit and probability, and at most this for the index, which is sent as narrow as it can be.
_TOP_BYTES = 3 * _FLOAT32_BYTES


class Wanted(NamedTuple):
    """What of a model's output a caller wants.

    Attributes:
        kind: `full` and `logits` have the size that was measured, since maps do not tell logits
            from what else an output has; `top_k` has `k` of them, `pooled` one vector per sample.
        k: logits per row for `top_k`.
    """

    kind: Kind = "full"
    k: int = 5

    @classmethod
    def of(cls, form: OutputForm) -> Wanted:
        """Return what a form means for its bytes."""
        return cls(form.kind, form.k)

    def payload(self, measured: Payload, model: ModelShape) -> Payload:
        """Return the bytes of a sample in this form, never more than in the whole one."""
        if self.kind == "pooled":
            return _at_most(measured, _FLOAT32_BYTES * model.hidden, 0.0)
        if self.kind == "top_k":
            per_row = float(_TOP_BYTES * self.k)
            # Rows are positions where the output grows with these, else samples.
            rows = (0.0, per_row) if measured.output_bytes_per_position else (per_row, 0.0)
            return _at_most(measured, *rows)
        return measured

    @property
    def gathers_rows(self) -> bool:
        """Whether a model head may need the output rows of all positions for it."""
        return self.kind != "pooled"


WHOLE = Wanted()


def _at_most(measured: Payload, fixed: float, per_position: float) -> Payload:
    if measured.output_bytes_per_position:
        fixed = min(fixed, measured.output_bytes + measured.output_bytes_per_position)
        return replace(
            measured,
            output_bytes=fixed,
            output_bytes_per_position=min(per_position, measured.output_bytes_per_position),
        )
    return replace(measured, output_bytes=min(fixed, measured.output_bytes))
