"""How the nodes of a sequence plan wait for each other, block by block."""

from __future__ import annotations

from collections.abc import Sequence

from prism.partition.senders import sources_of
from prism.plan import ModelShape, Plan
from prism.planner.traffic import PART_BEFORE_ATTENTION

# Where one row is asked for, what rank 0 computes of the last block: the keys and values of all, 2
# of 12 equal matrix products.
_PART_OF_LAST = 1 / 6


def blocks_computed(plan: Plan, model: ModelShape, one_row: bool) -> list[float]:
    """Return by rank how many blocks a node computes.

    Args:
        plan: a sequence plan.
        model: how many there are.
        one_row: whether the model head needs the first row only. Then helpers end with their last
            means, of the rows before the last block, or with lag before the one before it.
    """
    if not one_row or model.rotary:
        return [float(model.blocks)] * plan.size
    helper = float(max(0, model.blocks - 1 - plan.lag))
    return [model.blocks - 1 + _PART_OF_LAST, *[helper] * (plan.size - 1)]


def played(
    plan: Plan,
    model: ModelShape,
    block_s: Sequence[float],
    begins_s: Sequence[float],
    exchange_s: float,
    one_row: bool = False,
) -> list[float]:
    """Return when each node is done with the last block that it computes.

    Args:
        plan: a sequence plan.
        model: its blocks; rotary ones exchange inside the attention, and from the first block on.
        block_s: by rank, the computation of one block.
        begins_s: by rank, when it has its input.
        exchange_s: from the post of a frame to its arrival.
        one_row: see `blocks_computed`.
    """
    computed = blocks_computed(plan, model, one_row)
    sources = [sources_of(rank, plan, model.causal) for rank in range(plan.size)]
    first = 0 if model.rotary else plan.lag + 1  # the others' input serves the blocks before it
    at_s, posted_s = list(begins_s), list[list[float]]()
    for block in range(model.blocks):
        # Of the last block that a node computes it may be a part only.
        work_s = [
            seconds * min(1.0, max(0.0, count - block))
            for seconds, count in zip(block_s, computed, strict=True)
        ]
        before_s = [
            min(work, PART_BEFORE_ATTENTION * seconds)
            for work, seconds in zip(work_s, block_s, strict=True)
        ]
        attends_s = [at + before for at, before in zip(at_s, before_s, strict=True)]
        posted_s.append(attends_s if model.rotary else at_s)
        if block >= first:
            came_s = [posted + exchange_s for posted in posted_s[block - plan.lag]]
            attends_s = [
                max([own_s, *(came_s[other] for other in others)]) if count > block else own_s
                for own_s, others, count in zip(attends_s, sources, computed, strict=True)
            ]
        rest_s = [work - before for work, before in zip(work_s, before_s, strict=True)]
        at_s = [attends + rest for attends, rest in zip(attends_s, rest_s, strict=True)]
    return at_s
