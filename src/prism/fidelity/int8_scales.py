"""Dynamic int8 products on one machine, scaled as the nodes of a plan would scale them.

Such a product rounds its input to 8 bits by the largest value in it. A node has its own rows of one
request in there; here lie the rows of all nodes, and of all samples of a batch. One scale for all
of them would make an answer depend on what it is computed together with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from prism.models.inputs import check_inputs
from prism.models.int8 import Int8Linear
from prism.models.load import LoadedModel
from prism.partition.spans import segment_sizes, spans
from prism.plan import Plan

Product = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def scaled_apart(loaded: LoadedModel, plan: Plan, inputs: Mapping[str, Any]) -> Iterator[None]:
    """Make int8 products inside this context scale every sample's, and every node's, rows alone.

    A node rounds the means of all others together. Here those of more than two nodes share one
    scale, which may be a little coarser. A model without such products is left alone.

    Args:
        loaded: the model.
        plan: says which rows are whose.
        inputs: of the forward calls to come, as a caller gives them.
    """
    products = [each for each in loaded.model.modules() if isinstance(each, Int8Linear)]
    if not products:
        yield
        return
    batch, length = check_inputs(loaded.info, inputs)
    parts = _parts(plan, length)
    for module in products:
        module.forward = _apart(module.forward, batch, parts)
    try:
        yield
    finally:
        for module in products:
            del module.forward  # the class's own is seen again


def _parts(plan: Plan, length: int) -> dict[int, Sequence[int]]:
    """Return how many rows of a sample each node has, by how many rows there are in all."""
    if not plan.exchanges:
        return {}
    own = [part.size for part in spans(length, plan.size, plan.shares)]
    means = [len(segment_sizes(size, plan.means)) for size in own]
    # Of two nodes the others' means are those of one.
    return ({sum(means): means} if plan.size == 2 else {}) | {length: own}


def _apart(product: Product, batch: int, parts: Mapping[int, Sequence[int]]) -> Product:
    """Return a product that rounds the rows of each sample and node by themselves.

    Args:
        product: from `(..., D)` to `(..., E)`; samples come one after the other.
        batch: samples.
        parts: as `_parts` gives them; other numbers of rows are not split.
    """

    def forward(x: torch.Tensor) -> torch.Tensor:
        rows_RD = x.reshape(-1, x.shape[-1])
        each = rows_RD.shape[0] // batch
        sizes = [*parts.get(each, (each,))] * batch
        return torch.cat([product(part) for part in rows_RD.split(sizes)]).view(*x.shape[:-1], -1)

    return forward
