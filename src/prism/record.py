"""What is known of a link, and what an execution cost.

Plain frozen dataclasses without torch. Units stand in every name: `_s` seconds, `_j` joules, `_bps`
bits per second, `_bytes` bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, cast

from prism.errors import InputError
from prism.plan import Plan

Quality = Literal["measured", "estimated"]
Outcome = Literal["ok", "recovered", "failed"]


@dataclass(frozen=True, slots=True)
class LinkState:
    """One link as last seen.

    Attributes:
        bandwidth_bps: bits per second.
        latency_s: one way.
        measured_at_s: time of the measurement on the observer's monotonic clock.
        source: `configured`, `probe` or `passive` (from the records of real requests).
    """

    bandwidth_bps: float
    latency_s: float
    measured_at_s: float = 0.0
    source: Literal["configured", "probe", "passive"] = "configured"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bandwidth_bps) and self.bandwidth_bps > 0):
            raise InputError(f"bandwidth must be above 0 bit/s, not {self.bandwidth_bps}")
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise InputError(f"latency must not be negative, not {self.latency_s} s")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What one execution cost on one node.

    `total_s` is wall time, and the sum of the six parts that follow it. On rank 0 it spans the
    whole request, from being submitted to its joined output; on another node from being told of
    its input to its answer's arrival at the coordinator. Nothing is told twice: what rank 0 waits
    for somebody is booked where the reason lies.

    Attributes:
        node: its name.
        plan: that ran.
        batch: samples of the whole request.
        length: tokens per sample.
        backend: that ran the model.
        total_s: wall time.
        compute_s: the forward pass without what follows.
        staging_s: copies between device and host inside it; always 0 on a CPU.
        comm_s: standing still for peers that compute, or whose frames are under way.
        input_s: until the input lay here unpacked: its transfer from its announcement to its last
            byte, one latency, and on rank 0 its preparation and the time that rank 0 stood still
            because another node's input came later than its own.
        output_s: after the computation: rank 0's wait for the others' output rows inside the model,
            packing, transfer, one latency, and on rank 0 the others' outputs and joining them.
        queue_s: before the computation, for nodes that had other things to do: on rank 0 from
            being submitted to the start of the run that answered, failed ones included, and the
            time that the node, or one that rank 0 stood still for, was busy then.
        bytes_sent: to peers inside the model.
        messages: likewise.
        input_bytes: of tensors that the coordinator sent here, as they crossed the link; 0 where
            nobody counted.
        arrival_s: from being told of its input to its last byte, one latency included, whatever
            was computed meanwhile; 0 where nobody timed it.
        output_bytes: of tensors that came back from here.
        energy_j: None when nobody measured. Records with the same `energy_domain` read the same
            sensor, and must not be added up.
        outcome: `recovered` where another plan than the first answered.
        setback: why it did.
        per_node: on rank 0's record, those of the other nodes.
    """

    node: str
    plan: Plan
    batch: int
    length: int
    total_s: float
    compute_s: float = 0.0
    staging_s: float = 0.0
    comm_s: float = 0.0
    input_s: float = 0.0
    output_s: float = 0.0
    queue_s: float = 0.0
    bytes_sent: int = 0
    messages: int = 0
    input_bytes: int = 0
    arrival_s: float = 0.0
    output_bytes: int = 0
    energy_j: float | None = None
    energy_scope: str | None = None
    energy_domain: str | None = None
    energy_quality: Quality | None = None
    backend: str = "eager"
    outcome: Outcome = "ok"
    setback: str = ""
    per_node: Mapping[str, RunRecord] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; the plan as its text."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        others = {name: record.to_dict() for name, record in self.per_node.items()}
        return {**values, "plan": str(self.plan), "per_node": others}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunRecord:
        """Read what `to_dict` wrote; unknown keys are ignored."""
        known = {field.name for field in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        others = {
            name: cls.from_dict(record) for name, record in (values.get("per_node") or {}).items()
        }
        return cls(**{**kept, "plan": Plan.parse(cast(str, values["plan"])), "per_node": others})


class Choice(Protocol):
    """How a plan was chosen; `prism.planner.Decision` is the one there is."""

    @property
    def choice(self) -> Plan:
        """The plan."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Where it was placed, rank 0 first."""

    @property
    def predicted_s(self) -> float:
        """What it was predicted to take."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: the choice and the whole field it was made from."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a request gave.

    Attributes:
        output: the model's usual output, on the CPU.
        record: what it cost.
        decision: how its plan was chosen; None when the caller named it.
    """

    output: Any
    record: RunRecord
    decision: Choice | None = None
