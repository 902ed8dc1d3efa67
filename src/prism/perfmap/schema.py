"""The entries of a performance map and what makes each valid.

Every entry checks itself when it is made, so a map that a profiler builds and one that is read
from a stranger's file pass the same gate. Entries are frozen, comparable and JSON-able; a field
missing in a file is an error unless it has a default, an unknown one is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import median, quantiles
from typing import Any, Literal, get_args

from prism.errors import MapError
from prism.perfmap.checks import (
    build,
    require_integer,
    require_number,
    require_shape,
    require_text,
)
from prism.record import LinkState, RunRecord

PARTS = ("compute_s", "staging_s", "comm_s", "input_s", "output_s")


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node as it was measured; the first of a map is the first node.

    `threads` is None where nobody said. `backend` is what ran the model.
    """

    name: str
    hardware: str
    torch: str
    transformers: str
    dtype: str
    threads: int | None = None
    backend: str = "eager"

    def __post_init__(self) -> None:
        for name in ("name", "hardware", "torch", "transformers", "dtype", "backend"):
            require_text(f"node {name}", getattr(self, name))
        if self.threads is not None:
            require_integer("node threads", self.threads, 1)

    @property
    def kind(self) -> tuple[str, int | None, str]:
        """What tells whether two nodes of a cluster are alike: hardware, threads and backend."""
        return self.hardware, self.threads, self.backend


@dataclass(frozen=True, slots=True)
class MapLink:
    """The link under which a map was measured, and what an exchange on it costs.

    An exchange of n bytes, counted as `planner.traffic.exchange_bytes` does, took
    `fixed_s + n * per_byte_s` while all nodes exchanged at once.

    Attributes:
        bandwidth_bps: bits per second.
        latency_s: one way; None = unknown, and part of `fixed_s`.
        fixed_s: time of an empty exchange (a), latency included.
        per_byte_s: time per byte (b); None = 8 / bandwidth.
        shared: whether all senders share the medium (WiFi) instead of having a port each.
        exchange: `overlapped` = posted early, awaited late, none at block 0; `blocking` = one
            collective at every block, all of its time stood still.
    """

    bandwidth_bps: float
    latency_s: float | None = None
    fixed_s: float = 0.0
    per_byte_s: float | None = None
    shared: bool = False
    exchange: Literal["overlapped", "blocking"] = "overlapped"

    def __post_init__(self) -> None:
        require_number("link bandwidth_bps", self.bandwidth_bps, low=1.0)
        require_number("link fixed_s", self.fixed_s)
        if self.latency_s is not None:
            require_number("link latency_s", self.latency_s)
        if self.per_byte_s is not None:
            require_number("link per_byte_s", self.per_byte_s)
        if not isinstance(self.shared, bool):
            raise MapError(f"link shared must be true or false, not {self.shared!r}")
        if self.exchange not in ("overlapped", "blocking"):
            raise MapError(f"link exchange must be overlapped or blocking, not {self.exchange!r}")

    def state(self) -> LinkState:
        """Return the link as measured, as a state that plans can be predicted for."""
        return LinkState(self.bandwidth_bps, self.latency_s or 0.0, source="configured")


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes of one sample's inputs and outputs on the wire: a fixed part and one per position."""

    input_bytes: float = 0.0
    input_bytes_per_position: float = 0.0
    output_bytes: float = 0.0
    output_bytes_per_position: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            require_number(f"payload {field.name}", getattr(self, field.name))

    def inputs(self, batch: int, length: int) -> float:
        """Return the bytes of the inputs of `batch` samples."""
        return batch * (self.input_bytes + self.input_bytes_per_position * length)

    def outputs(self, batch: int, length: int) -> float:
        """Return the bytes of the outputs of `batch` samples."""
        return batch * (self.output_bytes + self.output_bytes_per_position * length)


@dataclass(frozen=True, slots=True)
class Stat:
    """The median of some runs and their interquartile range, None where nobody knows it."""

    median: float
    spread: float | None = None

    def __post_init__(self) -> None:
        require_number("median", self.median)
        if self.spread is not None:
            require_number("spread", self.spread)

    def to_dict(self) -> dict[str, float]:
        """Return plain JSON types."""
        known = {"median": self.median}
        return known if self.spread is None else {**known, "spread": self.spread}

    @classmethod
    def of(cls, samples: Sequence[float]) -> Stat:
        """Summarise at least one sample."""
        if len(samples) < 2:
            return cls(float(samples[0]))
        low, _, high = quantiles(samples, n=4, method="inclusive")
        return cls(float(median(samples)), high - low)


AccuracyMetric = Literal["accuracy", "agreement", "embedding", "language"]
_ZERO = Stat(0.0)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one plan cost at one batch size and length, as the first node saw it.

    `energy_j` is the sum over the nodes that took part, for the whole batch. `bytes_sent` and
    `messages` are None where nobody counted.
    """

    plan: str
    batch: int
    length: int
    runs: int
    total_s: Stat
    compute_s: Stat = _ZERO
    staging_s: Stat = _ZERO
    comm_s: Stat = _ZERO
    input_s: Stat = _ZERO
    output_s: Stat = _ZERO
    energy_j: Stat | None = None
    bytes_sent: int | None = None
    messages: int | None = None

    def __post_init__(self) -> None:
        require_shape("measurement plan", self.plan)
        where = f"measurement {self.plan} batch {self.batch} length {self.length}"
        for name in ("batch", "length", "runs"):
            require_integer(f"{where}: {name}", getattr(self, name), 1)
        for name in ("bytes_sent", "messages"):
            if getattr(self, name) is not None:
                require_integer(f"{where}: {name}", getattr(self, name))
        for name in (*PARTS, "total_s"):
            if not isinstance(getattr(self, name), Stat):
                raise MapError(f"{where}: {name} must be a Stat, not {getattr(self, name)!r}")
        if self.total_s.median == 0:
            raise MapError(f"{where}: total_s must be above 0")

    @property
    def key(self) -> tuple[str, int, int]:
        """What a map finds this by: plan shape, batch, length."""
        return self.plan, self.batch, self.length

    @classmethod
    def of(cls, records: Sequence[RunRecord], energies_j: Sequence[float] = ()) -> Measurement:
        """Summarise the first node's records of runs of one plan at one batch size and length.

        Args:
            records: at least one, all alike.
            energies_j: cluster-wide energy of each run; empty = the records' own, if all have it.
        """
        first = records[0]
        metered = [record.energy_j for record in records if record.energy_j is not None]
        if not energies_j and len(metered) == len(records):
            energies_j = metered
        stats = {
            name: Stat.of([getattr(record, name) for record in records])
            for name in (*PARTS, "total_s")
        }
        return cls(
            plan=first.plan.shape,
            batch=first.batch,
            length=first.length,
            runs=len(records),
            energy_j=Stat.of(energies_j) if energies_j else None,
            bytes_sent=round(median(record.bytes_sent for record in records)),
            messages=round(median(record.messages for record in records)),
            **stats,
        )

    @classmethod
    def from_dict(cls, values: Any) -> Measurement:
        """Read one entry of a file."""
        if isinstance(values, dict):
            stats = {
                name: build(Stat, values[name])
                for name in (*PARTS, "total_s", "energy_j")
                if values.get(name) is not None
            }
            values = {**values, **stats}
        return build(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; parts that are exactly zero are left out."""
        result: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Stat):
                value = None if value == _ZERO else value.to_dict()
            if value is not None:
                result[field.name] = value
        return result


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What a compression's answers are worth, against the exact ones of the same model.

    Attributes:
        plan: the compression, as the shape of a plan.
        accuracy: the metric's value, 0..1.
        drop: what is lost against exact answers, -1..1.
        count: samples it rests on; None where nobody said.
        task: on which data.
        metric: `accuracy` (share of labels named), `agreement` (share of answers that are the
            exact ones), `embedding` (mean cosine), `language` (agreement on the next token).
        drop_low, drop_high: 95 % interval of the drop; None where nobody gave one.
        longest: positions of the longest sample; a longer one is compressed more, and may lose
            more. None where nobody said.
    """

    plan: str
    accuracy: float
    drop: float
    count: int | None = None
    task: str = ""
    metric: AccuracyMetric = "accuracy"
    drop_low: float | None = None
    drop_high: float | None = None
    longest: int | None = None

    def __post_init__(self) -> None:
        require_shape("accuracy plan", self.plan)
        require_number(f"accuracy of {self.plan}", self.accuracy, 0.0, 1.0)
        require_number(f"accuracy drop of {self.plan}", self.drop, -1.0, 1.0)
        if self.count is not None:
            require_integer(f"accuracy count of {self.plan}", self.count, 1)
        if self.longest is not None:
            require_integer(f"longest sample of the accuracy of {self.plan}", self.longest, 1)
        if not isinstance(self.task, str):
            raise MapError(f"accuracy task of {self.plan} must be a text, not {self.task!r}")
        if self.metric not in get_args(AccuracyMetric):
            raise MapError(f"accuracy of {self.plan} has an unknown metric {self.metric!r}")
        for end in (self.drop_low, self.drop_high):
            if end is not None:
                require_number(f"interval of the accuracy drop of {self.plan}", end, -1.0, 1.0)

    @property
    def drop_upper(self) -> float:
        """The most that may be lost: the interval's upper end, or the drop where there is none."""
        return self.drop if self.drop_high is None else max(self.drop, self.drop_high)
