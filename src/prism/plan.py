"""How a batch can be executed, and what a plan is chosen for.

Plain frozen dataclasses without torch, cheap to import, compare, hash and log.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from prism.errors import InputError, PlanError

Strategy = Literal["local", "batch", "sequence"]
Grouping = Literal["segments", "clusters"]
Wire = Literal["float32", "float16", "bfloat16"]
Precision = Literal["float32", "half", "int8"]
Metric = Literal["latency", "energy", "edp"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

WIRE_BYTES: Mapping[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
_WIRE_TEXT = {"float16": "f16", "bfloat16": "bf16"}
_GROUPING_TEXT: Mapping[str, str] = {"segments": "L", "clusters": "C"}
_GROUPINGS: Mapping[str, Grouping] = {"L": "segments", "C": "clusters"}
_NODE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# Bounds, so that a number from outside is never turned into a huge tuple.
_MOST_NODES = 1024
_MOST_MEANS = 999_999_999
_GRAMMAR = (
    "a plan is local, local@NODE, batch:NODES[:shares=A/B], or "
    "seq:NODES:full|L<n>|C<n>[:lag1][:f16|:bf16][:shares=A/B], where NODES is a count or "
    "NAME+NAME, and each may end in :half or :int8"
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
        nodes: names of the nodes that take part, rank 0 first; such a plan runs on no others.
            Empty for a counted plan, and for `local` on the first node.
        count: how many nodes take part, whichever they are; 0 for a named plan and for `local`.
        shares: one weight per node, of rows (`batch`) or positions (`sequence`); empty = equal.
        means: means sent per partition; None sends every row (full exchange).
        grouping: which rows are averaged together: contiguous `segments` (the paper's), or
            `clusters` of similar rows, chosen per sample and block.
        lag: 0, or 1 to attend to the means of the previous block's input.
        wire: dtype of exchanged values.
        precision: of the computation. `half` is bfloat16 on CPUs and float16 on GPUs; `int8` has
            weights and, in matrix products, activations of 8 bits.
    """

    strategy: Strategy = "local"
    nodes: tuple[str, ...] = ()
    count: int = 0
    shares: tuple[float, ...] = ()
    means: int | None = None
    grouping: Grouping = "segments"
    lag: int = 0
    wire: Wire = "float32"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            raise PlanError(f"unknown strategy {self.strategy!r}; use local, batch or sequence")
        if self.wire not in WIRE_BYTES:
            raise PlanError(f"unknown wire dtype {self.wire!r}; use {', '.join(WIRE_BYTES)}")
        if self.precision not in PRECISIONS:
            raise PlanError(f"unknown precision {self.precision!r}; use {', '.join(PRECISIONS)}")
        if self.grouping not in _GROUPING_TEXT:
            raise PlanError(f"unknown grouping {self.grouping!r}; use segments or clusters")
        if self.grouping != "segments" and self.means is None:
            raise PlanError("clusters need a number of means: C<n>, for example C10")
        if self.lag not in (0, 1):
            raise PlanError(f"lag must be 0 or 1, not {self.lag!r}")
        if self.means is not None and not 1 <= self.means <= _MOST_MEANS:
            raise PlanError(f"means must lie in 1..{_MOST_MEANS}, not {self.means}; or use full")
        self._check_nodes()
        if self.strategy != "sequence" and (self.means, self.lag, self.wire) != (
            None,
            0,
            "float32",
        ):
            raise PlanError("means, lag and wire belong to sequence plans only")
        self._check_shares()

    def _check_nodes(self) -> None:
        if self.nodes and self.count:
            raise PlanError(f"nodes are named or counted, not both: {self.nodes} and {self.count}")
        if not 0 <= self.count <= _MOST_NODES or len(self.nodes) > _MOST_NODES:
            raise PlanError(f"{self.size} nodes are not possible; at most {_MOST_NODES} are")
        for name in self.nodes:
            if not is_node_name(name):
                raise PlanError(f"{name!r} is no node name: {_GRAMMAR}")
        if len(set(self.nodes)) != len(self.nodes):
            raise PlanError(f"a node appears twice in {', '.join(self.nodes)}; name each once")
        if self.strategy == "local":
            if self.count or len(self.nodes) > 1:
                raise PlanError("a local plan runs on one node; use batch or seq for several")
        elif self.size < 2:
            raise PlanError(f"a {self.strategy} plan needs at least 2 nodes; use local for one")

    def _check_shares(self) -> None:
        if not self.shares:
            return
        if self.strategy == "local":
            raise PlanError("shares belong to batch and sequence plans only")
        if len(self.shares) != self.size:
            raise PlanError(f"{len(self.shares)} shares for {self.size} nodes; give one each")
        if any(not math.isfinite(share) or share < 0 for share in self.shares):
            raise PlanError(f"shares must be finite and not negative: {self.shares}")
        if self.strategy == "sequence" and min(self.shares) == 0:
            raise PlanError("a sequence node needs a share above 0; leave the node out instead")
        if sum(self.shares) == 0:
            raise PlanError("at least one share must be above 0")

    @property
    def size(self) -> int:
        """Number of nodes that take part."""
        return max(1, self.count, len(self.nodes))

    @property
    def exchanges(self) -> bool:
        """Whether the nodes exchange something inside the model."""
        return self.strategy == "sequence"

    @property
    def least_batch(self) -> int:
        """The smallest batch with a row for every node."""
        return self.size if self.strategy == "batch" else 1

    @property
    def least_length(self) -> int:
        """The shortest sequence with a position for every node."""
        return self.size if self.strategy == "sequence" else 1

    @property
    def exact(self) -> bool:
        """Whether the answer equals the unmodified model's, up to rounding of float32."""
        return self.precision == "float32" and not self.compressed

    @property
    def compressed(self) -> bool:
        """Whether less is exchanged than the values of every row."""
        return self.strategy == "sequence" and (
            self.means is not None or self.lag != 0 or self.wire != "float32"
        )

    @property
    def shape(self) -> str:
        """The text form with nodes counted, not named: the key of a performance map."""
        if self.strategy == "local":
            return str(self)
        return str(replace(self, nodes=(), count=self.size))

    def place(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the nodes that run this plan, rank 0 first.

        Args:
            names: the cluster's nodes in its order; a counted plan takes the first.

        Raises:
            PlanError: a named node is not in the cluster, or there are too few.
        """
        missing = [name for name in self.nodes if name not in names]
        if missing:
            raise PlanError(
                f"plan {self} names {', '.join(missing)}; the cluster has {', '.join(names)}"
            )
        if self.size > len(names):
            raise PlanError(
                f"plan {self} needs {self.size} nodes, the cluster has {len(names)} "
                f"({', '.join(names)}); start more nodes or use a smaller plan"
            )
        return self.nodes or tuple(names[: self.size])

    def on(self, names: Sequence[str]) -> Plan:
        """Return this plan as a record of the cluster `names` shows it: `local` with its node.

        Raises:
            PlanError: as `place` does.
        """
        nodes = self.place(names)
        return replace(self, nodes=nodes) if self.strategy == "local" else self

    @property
    def _means_text(self) -> str:
        return "full" if self.means is None else f"{_GROUPING_TEXT[self.grouping]}{self.means}"

    def __str__(self) -> str:
        if self.strategy == "local":
            parts = [f"local@{self.nodes[0]}" if self.nodes else "local"]
        else:
            parts = [
                "batch" if self.strategy == "batch" else "seq",
                "+".join(self.nodes) or str(self.count),
            ]
        if self.strategy == "sequence":
            parts.append(self._means_text)
            if self.lag:
                parts.append(f"lag{self.lag}")
            if self.wire != "float32":
                parts.append(_WIRE_TEXT[self.wire])
        if self.precision != "float32":
            parts.append(self.precision)
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
    first, *options = text.strip().split(":")
    values: dict[str, Any]
    if first == "local" or first.startswith("local@"):
        values = {"nodes": (first[len("local@") :],)} if "@" in first else {}
    elif first in ("batch", "seq") and options:
        values = {
            "strategy": "batch" if first == "batch" else "sequence",
            **_parse_nodes(text, options.pop(0)),
        }
    else:
        raise PlanError(f"{text!r} is not a plan; {_GRAMMAR}")
    if first == "seq":
        if not options:
            raise PlanError(f"{text!r} lacks its means: add full, L<n> or C<n>; {_GRAMMAR}")
        values |= _parse_means(text, options.pop(0))
    for option in options:
        key, value = _parse_option(text, option)
        if key in values:
            raise PlanError(f"{text!r} gives {key} twice")
        values[key] = value
    return values


def _parse_nodes(text: str, nodes: str) -> dict[str, Any]:
    if nodes.isdecimal():
        if len(nodes) > 4 or int(nodes) > _MOST_NODES:
            raise PlanError(f"{text!r} asks for too many nodes; at most {_MOST_NODES} are allowed")
        return {"count": int(nodes)}
    return {"nodes": tuple(nodes.split("+"))}


def _parse_means(text: str, means: str) -> dict[str, Any]:
    if means == "full":
        return {"means": None}
    if re.fullmatch(r"[LC]-?\d{1,9}", means):
        return {"means": int(means[1:]), "grouping": _GROUPINGS[means[0]]}
    raise PlanError(f"{text!r}: {means!r} is none of full, L<n>, C<n>; {_GRAMMAR}")


def _parse_option(text: str, option: str) -> tuple[str, Any]:
    if re.fullmatch(r"lag\d", option):
        return "lag", int(option[3:])
    if option in PRECISIONS[1:]:
        return "precision", option
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
            Compared with it is the upper end of the drop's 95 % interval, where there is one.
        point_estimate: compare the measured drop itself, whatever its interval.
    """

    metric: Metric = "latency"
    max_accuracy_drop: float = 0.0
    point_estimate: bool = False

    def __post_init__(self) -> None:
        if self.metric not in get_args(Metric):
            raise InputError(f"unknown objective {self.metric!r}; use latency, energy or edp")
        if not 0.0 <= self.max_accuracy_drop <= 1.0:
            raise InputError(
                f"max_accuracy_drop must lie in 0..1 (0.02 = 2 points), "
                f"not {self.max_accuracy_drop}"
            )


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
        windowed: whether some layer attends to a window only, for which no means are defined.
    """

    family: str
    blocks: int
    hidden: int
    row_elements: int
    causal: bool
    rotary: bool
    max_length: int
    windowed: bool = False
