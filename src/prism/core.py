"""The vocabulary every part of prism speaks: plans, objectives, links, records.

Plain frozen dataclasses without torch, cheap to import, compare, hash and log. Units stand in
every name: `_s` seconds, `_j` joules, `_bps` bits per second, `_bytes` bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast, get_args

from prism.errors import InputError, PlanError

Strategy = Literal["local", "batch", "sequence"]
Wire = Literal["float32", "float16", "bfloat16"]
Metric = Literal["latency", "energy", "edp"]
Quality = Literal["measured", "estimated"]
Outcome = Literal["ok", "recovered", "failed"]

WIRE_BYTES: Mapping[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
_WIRE_TEXT = {"float16": "f16", "bfloat16": "bf16"}
_NODE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# Bounds, so that a number from outside is never turned into a huge tuple.
_MOST_NODES = 1024
_MOST_SEGMENTS = 999_999_999
_GRAMMAR = (
    "a plan is local, local@NODE, batch:NODES[:shares=A/B], or "
    "seq:NODES:full|L<n>[:lag1][:f16|:bf16][:shares=A/B], where NODES is a count or NAME+NAME"
)


def default_node_name(index: int) -> str:
    """Return the name that node `index` has when nobody gave it one."""
    return f"node{index}"


def is_node_name(text: str) -> bool:
    """Return whether `text` can name a node: letters, digits, inner `.`, `_`, `-`; not a number."""
    return bool(_NODE_NAME.fullmatch(text)) and not text.isdigit()


@dataclass(frozen=True, slots=True)
class Plan:
    """How one batch is executed.

    Attributes:
        strategy: `local` (one node), `batch` (rows split), `sequence` (positions split).
        nodes: participating node names, the head first for `sequence`; empty for `local` on the
            head. The names node0, node1, ... in order mean "the first so many nodes".
        shares: one weight per node, of rows (`batch`) or positions (`sequence`); empty = equal.
        segments: means sent per partition (L); None sends every row (full exchange).
        lag: 0, or 1 to attend to the means of the previous block's input.
        wire: dtype of exchanged values.
    """

    strategy: Strategy = "local"
    nodes: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    segments: int | None = None
    lag: int = 0
    wire: Wire = "float32"

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            raise PlanError(f"unknown strategy {self.strategy!r}; use local, batch or sequence")
        if self.wire not in WIRE_BYTES:
            raise PlanError(f"unknown wire dtype {self.wire!r}; use {', '.join(WIRE_BYTES)}")
        if self.lag not in (0, 1):
            raise PlanError(f"lag must be 0 or 1, not {self.lag!r}")
        if self.segments is not None and not 1 <= self.segments <= _MOST_SEGMENTS:
            raise PlanError(
                f"segments must lie in 1..{_MOST_SEGMENTS}, not {self.segments}; or use full"
            )
        if len(self.nodes) > _MOST_NODES:
            raise PlanError(f"{len(self.nodes)} nodes are too many; at most {_MOST_NODES}")
        for name in self.nodes:
            if not is_node_name(name):
                raise PlanError(f"{name!r} is no node name: {_GRAMMAR}")
        if len(set(self.nodes)) != len(self.nodes):
            raise PlanError(f"a node appears twice in {', '.join(self.nodes)}; name each once")
        if self.strategy == "local":
            if len(self.nodes) > 1:
                raise PlanError("a local plan runs on one node; use batch or seq for several")
        elif len(self.nodes) < 2:
            raise PlanError(f"a {self.strategy} plan needs at least 2 nodes; use local for one")
        if self.strategy != "sequence" and (self.segments, self.lag, self.wire) != (
            None,
            0,
            "float32",
        ):
            raise PlanError("segments, lag and wire belong to sequence plans only")
        self._check_shares()

    def _check_shares(self) -> None:
        if not self.shares:
            return
        if self.strategy == "local":
            raise PlanError("shares belong to batch and sequence plans only")
        if len(self.shares) != len(self.nodes):
            raise PlanError(f"{len(self.shares)} shares for {len(self.nodes)} nodes; give one each")
        if any(not math.isfinite(share) or share < 0 for share in self.shares):
            raise PlanError(f"shares must be finite and not negative: {self.shares}")
        if self.strategy == "sequence" and min(self.shares) == 0:
            raise PlanError("a sequence node needs a share above 0; leave the node out instead")
        if sum(self.shares) == 0:
            raise PlanError("at least one share must be above 0")

    @property
    def size(self) -> int:
        """Number of nodes that take part."""
        return max(1, len(self.nodes))

    @property
    def exact(self) -> bool:
        """Whether the answer equals the unmodified model's, up to rounding."""
        return self.strategy != "sequence" or (
            self.segments is None and self.lag == 0 and self.wire == "float32"
        )

    @property
    def anonymous(self) -> bool:
        """Whether the nodes are only counted, so that the head may choose which."""
        return self.nodes == tuple(default_node_name(i) for i in range(len(self.nodes)))

    @property
    def shape(self) -> str:
        """The text form with nodes counted, not named: the key of a performance map."""
        if self.strategy == "local":
            return str(self)
        return str(replace(self, nodes=tuple(default_node_name(i) for i in range(self.size))))

    def on(self, names: Sequence[str]) -> Plan:
        """Return this plan with its nodes drawn from `names`, the cluster's nodes, head first.

        Raises:
            PlanError: a named node is not in the cluster, or there are too few.
        """
        if self.strategy == "local" and not self.nodes:
            return replace(self, nodes=(names[0],))
        if self.anonymous and self.strategy != "local":
            if self.size > len(names):
                raise PlanError(
                    f"plan {self} needs {self.size} nodes, the cluster has {len(names)} "
                    f"({', '.join(names)}); start more nodes or use a smaller plan"
                )
            return replace(self, nodes=tuple(names[: self.size]))
        missing = [name for name in self.nodes if name not in names]
        if missing:
            raise PlanError(
                f"plan {self} names {', '.join(missing)}; the cluster has {', '.join(names)}"
            )
        return self

    def __str__(self) -> str:
        if self.strategy == "local":
            return f"local@{self.nodes[0]}" if self.nodes else "local"
        parts = [
            "batch" if self.strategy == "batch" else "seq",
            str(self.size) if self.anonymous else "+".join(self.nodes),
        ]
        if self.strategy == "sequence":
            parts.append("full" if self.segments is None else f"L{self.segments}")
            if self.lag:
                parts.append(f"lag{self.lag}")
            if self.wire != "float32":
                parts.append(_WIRE_TEXT[self.wire])
        if self.shares:
            parts.append("shares=" + "/".join(map(_share_text, self.shares)))
        return ":".join(parts)

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Read what `str(plan)` prints.

        Raises:
            PlanError: the text is not a plan; the message quotes it and says what is wrong.
        """
        values = _parse_fields(text)
        try:
            return cls(**values)
        except PlanError as error:
            raise PlanError(f"{text!r}: {error}") from None


def _share_text(share: float) -> str:
    short = f"{share:g}"
    return short if float(short) == share else repr(float(share))


def _parse_fields(text: str) -> dict[str, Any]:
    head, *options = text.strip().split(":")
    if head == "local" or head.startswith("local@"):
        if options:
            raise PlanError(f"{text!r}: local takes no options; {_GRAMMAR}")
        return {"nodes": (head[len("local@") :],)} if "@" in head else {}
    if head not in ("batch", "seq") or not options:
        raise PlanError(f"{text!r} is not a plan; {_GRAMMAR}")
    values: dict[str, Any] = {
        "strategy": "batch" if head == "batch" else "sequence",
        "nodes": _parse_nodes(text, options.pop(0)),
    }
    if head == "seq":
        if not options:
            raise PlanError(f"{text!r} lacks its segments: add full or L<n>; {_GRAMMAR}")
        values["segments"] = _parse_segments(text, options.pop(0))
    for option in options:
        key, value = _parse_option(text, option)
        if key in values:
            raise PlanError(f"{text!r} gives {key} twice")
        values[key] = value
    return values


def _parse_nodes(text: str, nodes: str) -> tuple[str, ...]:
    if nodes.isdecimal():
        if len(nodes) > 4 or int(nodes) > _MOST_NODES:
            raise PlanError(f"{text!r} asks for too many nodes; at most {_MOST_NODES} are allowed")
        return tuple(default_node_name(i) for i in range(int(nodes)))
    return tuple(nodes.split("+"))


def _parse_segments(text: str, segments: str) -> int | None:
    if segments == "full":
        return None
    if re.fullmatch(r"L-?\d{1,9}", segments):
        return int(segments[1:])
    raise PlanError(f"{text!r}: {segments!r} is neither full nor L<n>; {_GRAMMAR}")


def _parse_option(text: str, option: str) -> tuple[str, Any]:
    if re.fullmatch(r"lag\d", option):
        return "lag", int(option[3:])
    for wire, short in _WIRE_TEXT.items():
        if option == short:
            return "wire", wire
    if option.startswith("shares="):
        try:
            return "shares", tuple(float(share) for share in option[7:].split("/"))
        except ValueError:
            pass
    raise PlanError(f"{text!r}: unknown option {option!r}; {_GRAMMAR}")


@dataclass(frozen=True, slots=True)
class Objective:
    """What a plan is chosen for.

    Attributes:
        metric: `latency`, `energy`, or `edp` (energy times delay).
        max_accuracy_drop: largest tolerated drop of measured accuracy, 0..1; 0 = exact plans only.
    """

    metric: Metric = "latency"
    max_accuracy_drop: float = 0.0

    def __post_init__(self) -> None:
        if self.metric not in get_args(Metric):
            raise InputError(f"unknown objective {self.metric!r}; use latency, energy or edp")
        if not 0.0 <= self.max_accuracy_drop <= 1.0:
            raise InputError(
                f"max_accuracy_drop must lie in 0..1 (0.02 = 2 points), "
                f"not {self.max_accuracy_drop}"
            )


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

    `total_s` is the node's wall time; on the head it spans the whole request. `comm_s` is only the
    time the forward pass stood waiting for peers; `compute_s` is the rest of the forward pass
    without staging (device-host copies; always 0 on CPU). `energy_j` is None when nobody measured;
    records with the same `energy_domain` read the same sensor, and must not be added up. On the
    head's record `per_node` holds those of the other nodes.
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
    bytes_sent: int = 0
    messages: int = 0
    energy_j: float | None = None
    energy_scope: str | None = None
    energy_domain: str | None = None
    energy_quality: Quality | None = None
    outcome: Outcome = "ok"
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


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the cost of a plan depends on, of one model.

    Attributes:
        family: name of the family description.
        blocks: number of Transformer blocks.
        hidden: width of the residual stream.
        row_elements: values sent per exchanged row: `hidden`, or keys and values for rotary models.
        causal: whether a position attends only to earlier ones.
        rotary: whether positions live in the keys (payload after projection, no lag, no free
            block 0).
        max_length: longest sequence the model takes.
    """

    family: str
    blocks: int
    hidden: int
    row_elements: int
    causal: bool
    rotary: bool
    max_length: int
