"""In which form a helper is sent its input: all at once, a row ahead, or its own positions only.

A helper of a batch plan can begin with its first row while the others travel.

A helper of a sequence plan computes its own positions, and needs of the others only what it attends
to in the first block: their rows or means of the block's input. So it can be given the pixels of
its own positions and those rows, made where the whole input is; for images that is less than the
whole input, for token ids it is more. Pure arithmetic, the same wherever it is asked.
"""

from __future__ import annotations

from prism.partition.senders import sent_rows, sizes_of, sources_of
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
    parts = _own_bytes(plan, shape, length, sample_bytes)
    return sum(parts) < len(parts) * sample_bytes


def helper_input_bytes(
    plan: Plan, shape: ModelShape, length: int, sample_bytes: float
) -> list[float]:
    """Return the bytes of one sample's input that reach each helper, ranks 1 and up.

    Args:
        plan: a sequence plan.
        shape: the model.
        length: positions of a sample.
        sample_bytes: of one sample's whole main input.

    Raises:
        RequestError: the length is too short for the nodes.
    """
    if travels_in_parts(plan, shape, length, sample_bytes):
        return _own_bytes(plan, shape, length, sample_bytes)
    return [sample_bytes] * (plan.size - 1)


def _own_bytes(plan: Plan, shape: ModelShape, length: int, sample_bytes: float) -> list[float]:
    """Return by helper the bytes of its part and of the others' rows."""
    sent = sent_rows(plan, length)
    row_bytes = (shape.hidden + (plan.grouping == "clusters")) * WIRE_BYTES[plan.wire]
    return [
        sample_bytes * size / length
        + row_bytes * sum(sent[other] for other in sources_of(rank, plan, shape.causal))
        for rank, size in enumerate(sizes_of(plan, length)[1:], start=1)
    ]
