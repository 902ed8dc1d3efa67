"""In which form a helper is sent its input: all at once, a row ahead, or its own positions only.

A helper of a batch plan can begin with its first row while the others travel.

A helper of a sequence plan computes its own positions, and needs of the others only what it attends
to in the first block: their rows or means of the block's input. So it can be given the pixels of
its own positions and those rows, made where the whole input is; for images that is less than the
whole input, for token ids it is more. Pure arithmetic, the same wherever it is asked.
"""

from __future__ import annotations

from prism.partition.spans import segment_sizes, spans
from prism.plan import WIRE_BYTES, ModelShape, Plan

# A row of fewer bytes, such as a text, is not worth a message of its own.
_ROW_BYTES = 16_000
# An input with no more bytes per position than one integer is token ids: always sent whole.
_ID_BYTES = 8


def rows_ahead(rows: int, row_bytes: float) -> int:
    """Return how many rows of a batch a helper is sent first, to begin with while others travel.

    Args:
        rows: that it computes.
        row_bytes: of the input of one.
    """
    return 1 if row_bytes >= _ROW_BYTES else rows


def travels_in_parts(plan: Plan, shape: ModelShape, length: int, sample_bytes: float) -> bool:
    """Return whether helpers get their own part and the others' rows, since that is fewer bytes.

    Args:
        plan: any plan; only sequence plans cut an input by positions.
        shape: the model.
        length: positions of a sample.
        sample_bytes: of one sample's whole main input.
    """
    if not plan.exchanges or shape.rotary or sample_bytes <= _ID_BYTES * length:
        return False
    parts = [_own_bytes(plan, shape, length, sample_bytes, rank) for rank in range(1, plan.size)]
    return sum(parts) < (plan.size - 1) * sample_bytes


def helper_input_bytes(
    plan: Plan, shape: ModelShape, length: int, sample_bytes: float, rank: int
) -> float:
    """Return the bytes of one sample's input that reach a helper: its part and the others' rows.

    Args:
        plan: a sequence plan.
        shape: the model.
        length: positions of a sample.
        sample_bytes: of one sample's whole main input.
        rank: the helper, 1 or more.
    """
    if travels_in_parts(plan, shape, length, sample_bytes):
        return _own_bytes(plan, shape, length, sample_bytes, rank)
    return sample_bytes


def _own_bytes(plan: Plan, shape: ModelShape, length: int, sample_bytes: float, rank: int) -> float:
    sizes = [span.size for span in spans(length, plan.size, plan.shares)]
    rows = sum(
        len(segment_sizes(size, plan.means))
        for other, size in enumerate(sizes)
        if other != rank and (other < rank or not shape.causal)
    )
    width = shape.hidden + (plan.grouping == "clusters")
    return sample_bytes * sizes[rank] / length + rows * width * WIRE_BYTES[plan.wire]
