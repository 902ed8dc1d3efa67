"""How the nodes of a sequence plan wait for each other, block by block."""

from __future__ import annotations

from collections.abc import Sequence

from prism.plan import ModelShape, Plan
from prism.planner.traffic import PART_BEFORE_ATTENTION, sources_of


def played(
    plan: Plan,
    model: ModelShape,
    block_s: Sequence[float],
    begins_s: Sequence[float],
    exchange_s: float,
) -> list[float]:
    """Return when each node is done with its last block.

    Args:
        plan: a sequence plan.
        model: its blocks; rotary ones exchange inside the attention, and from the first block on.
        block_s: by rank, the computation of one block.
        begins_s: by rank, when it has its input.
        exchange_s: from the post of a frame to its arrival.
    """
    sources = [sources_of(rank, plan, model) for rank in range(plan.size)]
    before_s = [PART_BEFORE_ATTENTION * seconds for seconds in block_s]
    first = 0 if model.rotary else plan.lag + 1  # the others' input serves the blocks before it
    at_s, posted_s = list(begins_s), list[list[float]]()
    for block in range(model.blocks):
        attends_s = [at + before for at, before in zip(at_s, before_s, strict=True)]
        posted_s.append(attends_s if model.rotary else at_s)
        if block >= first:
            came_s = [posted + exchange_s for posted in posted_s[block - plan.lag]]
            attends_s = [
                max([own_s, *(came_s[other] for other in others)])
                for own_s, others in zip(attends_s, sources, strict=True)
            ]
        rest_s = [whole - before for whole, before in zip(block_s, before_s, strict=True)]
        at_s = [attends + rest for attends, rest in zip(attends_s, rest_s, strict=True)]
    return at_s
