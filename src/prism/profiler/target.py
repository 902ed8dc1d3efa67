"""What the profiler needs of a cluster: to run a plan, and to time the link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from prism.perfmap import Accuracy, ClusterIdentity, CodingTimes, Payload
from prism.plan import ModelShape, Plan, Precision
from prism.profiler.linkfit import LinkTimes
from prism.record import RunRecord


class ProfileTarget(Protocol):
    """A loaded model on a cluster, as the profiler sees it.

    Attributes:
        identity: the model and the nodes, in the cluster's order.
        model: what costs depend on.
        payload: bytes of a sample's inputs and outputs.
        accuracy: what is known of the plans' accuracy; empty where nobody measured.
        lengths: sequence lengths worth measuring.
        any_length: whether a sample may have any length up to the model's longest, as texts may;
            else `lengths` is the only one.
        precisions: that every node can compute at, float32 first.
        coding: what compressing images costs each node; empty where inputs are none.
    """

    identity: ClusterIdentity
    model: ModelShape
    payload: Payload
    accuracy: tuple[Accuracy, ...]
    lengths: tuple[int, ...]
    any_length: bool
    precisions: tuple[Precision, ...]
    coding: tuple[CodingTimes, ...]

    def run(self, plan: Plan, batch: int, length: int) -> RunRecord:
        """Run made-up inputs once; return the first node's record."""

    def link_times(self, sizes: Sequence[int], repeats: int) -> LinkTimes:
        """Time exchanges among all nodes; needs at least two."""
