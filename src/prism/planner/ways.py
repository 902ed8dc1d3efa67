"""What the ways of inputs and outputs to and from the helpers tell about their links.

Records of any plan have them, as bytes and as the time that these took. No model of the plan stands
between the two, so this is the better witness where a transfer is long enough to be timed.
"""

from __future__ import annotations

from prism.planner.link_estimate import LinkSample
from prism.planner.links import Links
from prism.record import RunRecord

# Packing, encryption and waking up take part of this; what is shorter only bounds the link.
_LEAST_TRANSFER_S = 0.005


def way_samples(record: RunRecord, first: str, links: Links) -> dict[str, LinkSample]:
    """Return by helper what the ways of a run say about its link; those that say nothing lack.

    Args:
        record: rank 0's, or that of the only node.
        first: name of the first node, which needs no link.
        links: as believed; a way must be longer than the latency to tell anything.
    """
    helpers = [each for each in _untouched(record) if each.node != first]
    samples = {}
    arrived = max((each for each in helpers if each.input_bytes), key=_input_s, default=None)
    if arrived is not None:
        # All leave the first node at once, so the last one saw everybody's bytes go by.
        bits = 8.0 * sum(each.input_bytes for each in helpers)
        samples[arrived.node] = LinkSample(bits, arrived.input_s)
    if len(helpers) == 1 and helpers[0].output_bytes > helpers[0].input_bytes:
        (helper,) = helpers
        samples[helper.node] = LinkSample(8.0 * helper.output_bytes, helper.output_s)
    return {name: _weighed(each, links.to(name).latency_s) for name, each in samples.items()}


def _untouched(record: RunRecord) -> tuple[RunRecord, ...]:
    """Return the records whose ways are the node's own: rank 0's may hold waits for the others."""
    return tuple(record.per_node.values()) or (record,)


def _input_s(record: RunRecord) -> float:
    return record.input_s


def _weighed(sample: LinkSample, latency_s: float) -> LinkSample:
    timed = sample.seconds - latency_s >= max(latency_s, _LEAST_TRANSFER_S)
    return sample if timed else LinkSample(sample.bits, sample.seconds, at_most=True)
