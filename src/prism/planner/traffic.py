"""What one exchange of a sequence plan puts on the link, how often, and what it hides behind.

Shared by the cost model, which predicts waiting from it, and by a profiler, which fits the cost
of an exchange against the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from prism.partition import own_input
from prism.partition.senders import sent_rows, sizes_of
from prism.perfmap import MapLink, Measurement, Payload
from prism.plan import WIRE_BYTES, ModelShape, Plan
from prism.record import LinkState

# Of a block with an MLP four times as wide as the model, the Q, K and V projections are 3 of 12
# equal matrix products; attention itself, which comes later, makes the true part a little smaller.
PART_BEFORE_ATTENTION = 0.25
_FLOAT32_BYTES = 4


def exchange_count(plan: Plan, model: ModelShape, link: MapLink) -> int:
    """Return how many exchanges one forward pass of a sequence plan makes.

    Every node knows the whole input and so the means of block 0, unless they are made of rotated
    keys; with lag 1 they serve block 1 too. A blocking map was measured with one at every block.
    """
    if not plan.exchanges:
        return 0
    if link.exchange == "blocking" or (model.rotary and not plan.lag):
        return model.blocks
    return max(0, model.blocks - (2 if plan.lag else 1))


def helper_input_bytes(
    plan: Plan, model: ModelShape, payload: Payload, batch: int, length: int
) -> list[float]:
    """Return the bytes of input that each helper of a sequence plan is sent, ranks 1 and up.

    Either the whole input or what is needed of it; see `partition.own_input`.

    Raises:
        RequestError: the length is too short for the nodes.
    """
    parts = own_input.helper_input_bytes(plan, model, length, payload.inputs(1, length))
    return [batch * part for part in parts]


def output_row_bytes(plan: Plan, model: ModelShape, batch: int, length: int) -> list[float]:
    """Return the bytes of output rows that each helper sends to a model head that needs all."""
    helpers = sizes_of(plan, length)[1:]
    return [float(size * batch * model.hidden * WIRE_BYTES[plan.wire]) for size in helpers]


def needs_all_rows(model: ModelShape, payload: Payload, length: int) -> bool:
    """Whether the model head needs the output of all positions, told from the size of its own."""
    if payload.output_bytes_per_position:
        return True
    return payload.outputs(1, length) >= _FLOAT32_BYTES * model.hidden * length / 2


def brought_rows(
    entries: Iterable[Measurement], plan: Plan, model: ModelShape, link: MapLink
) -> bool:
    """Return whether helpers sent rank 0 all their output rows when a plan was measured.

    Some heads, such as one that averages all positions, have a small output and need every row.
    Told from the time that outputs took, as a whole, against that of so many bytes.
    """
    if not plan.exchanges:
        return False
    rows = [(sum(output_row_bytes(plan, model, e.batch, e.length)), e.output_s) for e in entries]
    took_s = sum(output_s.median for _, output_s in rows)
    return took_s >= 8 * sum(nbytes for nbytes, _ in rows) / link.bandwidth_bps / 2


def exchange_bytes(plan: Plan, model: ModelShape, batch: int, length: int, shared: bool) -> int:
    """Return the bytes that stand in line before one exchange of a sequence plan is complete.

    With a port per node those are the bytes that the busiest node receives; on a shared medium
    everything that is sent.

    Raises:
        RequestError: the length is too short for the nodes.
    """
    sent = sent_rows(plan, length)
    received = sum(sent) - min(sent)
    rows = (plan.size - 1) * sum(sent) if shared else received
    return rows * _row_elements(plan, model) * WIRE_BYTES[plan.wire] * batch


def bytes_per_block(plan: Plan, model: ModelShape, length: int) -> int:
    """Return the bytes that the busiest node receives before one block, for one sample.

    Args:
        plan: one that exchanges nothing has none.
        model: what a row is.
        length: positions of the sample.
    """
    return exchange_bytes(plan, model, 1, length, shared=False) if plan.exchanges else 0


def _row_elements(plan: Plan, model: ModelShape) -> int:
    """Return the values of one exchanged row.

    The size of a segment follows from its place, that of a cluster travels with its mean.
    """
    return model.row_elements + (plan.grouping == "clusters")


def transfer_s(size_bytes: float, measured: MapLink, now: LinkState) -> float:
    """Return how long an exchange of `size_bytes` takes on the link as it is now.

    The software's share of an exchange (the fitted fixed part less the latency then) stays; the
    fitted time per byte scales with the bandwidth.
    """
    overhead_s = max(0.0, measured.fixed_s - (measured.latency_s or 0.0))
    return overhead_s + now.latency_s + wire_bits(size_bytes, measured) / now.bandwidth_bps


def wire_bits(size_bytes: float, measured: MapLink) -> float:
    """Return the bits that `size_bytes` amount to on a link of the measured efficiency."""
    if measured.per_byte_s is None:
        return size_bytes * 8
    return size_bytes * measured.per_byte_s * measured.bandwidth_bps


def cover_s(plan: Plan, model: ModelShape, compute_s: float) -> float:
    """Return how much computation an exchange can hide behind, derived from the block's work.

    With lag 1 a transfer has a whole block; without, what precedes attention.
    """
    part = 1.0 if plan.lag else PART_BEFORE_ATTENTION
    return part * compute_s / model.blocks
