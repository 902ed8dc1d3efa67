"""Any sequence plan in one process, differentiable: for training and for measuring accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from prism.models.families import family_of
from prism.models.inputs import check_plan_of_family, token_mask
from prism.models.instrument import attached
from prism.partition.spans import segment_sizes, spans
from prism.partition.virtual import VirtualPass
from prism.plan import Plan
from prism.transport.staging import WIRE_DTYPES


@contextmanager
def virtual(
    model: PreTrainedModel, plan: Plan, attention_mask: torch.Tensor | None = None
) -> Iterator[None]:
    """Make forward calls inside this context compute what `plan` computes on several nodes.

    Contexts may be nested; the innermost counts. Gradients flow. Plans that split nothing inside
    the model (`local`, `batch`) change nothing.

    Args:
        model: a transformers model of a supported family.
        plan: its means, lag, wire and shares are honoured; node names do not matter.
        attention_mask: as given to the forward call; `(B, N)`, 0 where a text is padded.

    Raises:
        UnsupportedModel: the model cannot be partitioned; says why.
        PlanError: the plan is not defined for the model.
    """
    family = family_of(model.config)
    if not plan.exchanges:
        yield
        return
    check_plan_of_family(family, model.config, plan)

    def sizes_for(length: int) -> Sequence[Sequence[int]]:
        parts = spans(length, plan.size, plan.shares)
        return [segment_sizes(part.size, plan.means) for part in parts]

    forward_pass = VirtualPass(
        sizes_for,
        full=plan.means is None,
        clusters=plan.grouping == "clusters",
        lag=plan.lag,
        wire=WIRE_DTYPES[plan.wire],
        causal=family.causal,
        rotary=family.rotary,
        real_BN=token_mask(str(model.main_input_name), attention_mask),
    )
    with attached(model, family, forward_pass):
        yield
