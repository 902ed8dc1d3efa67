"""Predicted cost of a plan the map has measured: its computation, and the link as it is now.

Computation and staging do not depend on the link and are interpolated as measured. What crosses
the link is first predicted *at the measured points* for the current link, and only then
interpolated, so that predictions never fall as the batch grows, however noisy the map.

At the measured link every prediction equals the measurement. From there two models lead on:

- `overlapped` maps. An exchange stalls for `max(0, transfer - hidden)`. The measured stall gives
  `hidden` for every point by itself: `transfer at the measured link - stall`. Where an exchange
  was hidden entirely only a bound is known, and `exchange.cover_s` supplies the rest. The way of
  the inputs to the helpers is treated alike: all of its bytes scale, whatever part was waited for.
- `blocking` maps, the paper's among them: all of the communication stood still. It is split into
  bytes over bandwidth, at most what was measured, which scales with the link, and a fixed
  remainder that does not. Nothing else is fitted. Input and output follow this model too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from prism.perfmap import MapLink, Measurement, Payload, Surface
from prism.plan import ModelShape, Plan
from prism.planner.links import LinkSample
from prism.planner.traffic import (
    cover_s,
    exchange_bytes,
    exchange_count,
    transfer_s,
    wire_bits,
)
from prism.record import LinkState, RunRecord

# A wait this short found its data there: waking up takes as long.
_NO_STALL_S = 50e-6
_ROUNDING_S = 1e-9
_LINKS_KEPT = 8
_POINTS_KEPT = 4096


class Cost(NamedTuple):
    """Predicted cost of one batch; `other_s` is measured time that belongs to no part.

    `extrapolated` and `energy_extrapolated` tell that time or energy lie beyond what was measured.
    """

    compute_s: float
    staging_s: float = 0.0
    comm_s: float = 0.0
    input_s: float = 0.0
    output_s: float = 0.0
    other_s: float = 0.0
    energy_j: float | None = None
    extrapolated: bool = False
    energy_extrapolated: bool = False

    @property
    def total_s(self) -> float:
        """Predicted time of the whole request."""
        return sum(self[:6])


class LinkTime(NamedTuple):
    """A time spent on the link at one point: how it was, and what it depends on.

    Attributes:
        measured_s: on the measured link.
        bits: that scale with the bandwidth.
        waits: latencies in it.
        slack_s: how much longer the transfers may take before this time grows.
    """

    measured_s: float
    bits: float = 0.0
    waits: int = 0
    slack_s: float = 0.0

    def after(self, per_bit_s: float, latency_s: float) -> float:
        """Return the time when a bit takes `per_bit_s` longer and a latency `latency_s`."""
        longer_s = self.bits * per_bit_s + self.waits * latency_s
        if longer_s > 0:
            longer_s = max(0.0, longer_s - self.slack_s)
        return max(0.0, self.measured_s + longer_s)


class LinkPart:
    """One link-dependent part of a plan's cost, over all measured points."""

    def __init__(self, times: Mapping[tuple[int, int], LinkTime], measured: LinkState) -> None:
        self._times = times
        self._measured = measured
        self.as_measured = Surface({point: time.measured_s for point, time in times.items()})
        self._fixed = not any(time.bits or time.waits for time in times.values())

    def under(self, link: LinkState) -> Surface:
        """Return the part for another link."""
        if self._fixed:
            return self.as_measured
        per_bit_s = 1 / link.bandwidth_bps - 1 / self._measured.bandwidth_bps
        latency_s = link.latency_s - self._measured.latency_s
        return Surface(
            {point: time.after(per_bit_s, latency_s) for point, time in self._times.items()}
        )


_LinkSurfaces = tuple[Surface, Surface, Surface]


class PlanCost:
    """Predicts one measured plan shape."""

    def __init__(
        self,
        entries: tuple[Measurement, ...],
        model: ModelShape,
        link: MapLink,
        payload: Payload,
    ) -> None:
        """Take all measurements of one shape, and from the map what they were measured with.

        Raises:
            RequestError: a point is too short for the plan's nodes.
        """
        self.plan = Plan.parse(entries[0].plan)
        self._on_head = self.plan == Plan()
        self._model = model
        self._link = link
        self._measured = link.state()
        self._payload = payload
        self._exchanges = exchange_count(self.plan, model, link)
        self._compute = _surface(entries, lambda entry: entry.compute_s.median)
        self._staging = _surface(entries, lambda entry: entry.staging_s.median)
        self._other = _surface(entries, _other_s)
        self._total = _surface(entries, lambda entry: entry.total_s.median)
        metered = {(e.batch, e.length): e.energy_j.median for e in entries if e.energy_j}
        self._energy = Surface(metered) if metered else None
        self._comm = self._part(entries, self._measured_comm)
        self._input = self._part(entries, self._measured_input)
        self._output = self._part(entries, self._measured_output)
        self._by_link: OrderedDict[tuple[float, float], _LinkSurfaces] = OrderedDict()
        self.work: Callable[[int, int], Cost] = lru_cache(maxsize=_POINTS_KEPT)(self._work)

    def at(self, batch: int, length: int, link: LinkState) -> Cost:
        """Return the predicted cost of one batch under `link`."""
        cost = self.work(batch, length)
        if self._on_head:
            return cost
        comm, inputs, outputs = self._under(link)
        cost = Cost(
            cost.compute_s,
            cost.staging_s,
            comm.at(batch, length),
            inputs.at(batch, length),
            outputs.at(batch, length),
            *cost[5:],
        )
        if cost.energy_j is None:
            return cost
        # A node that waits is powered as well: energy goes with time.
        longer = cost.total_s / self._total.at(batch, length)
        return cost._replace(energy_j=cost.energy_j * longer)

    def link_sample(self, record: RunRecord) -> LinkSample | None:
        """Return what a run of this plan says about the link, or None if nothing.

        The inverse of the prediction: a stall longer or shorter than measured is put down to the
        link. A run that never stalled only shows that the link was fast enough.
        """
        if not self._exchanges or record.outcome != "ok":
            return None
        at = (record.batch, record.length)
        comm = self._comm_time(*at, self._comm.as_measured.at(*at), self._compute.at(*at))
        seconds = comm.bits / self._measured.bandwidth_bps + comm.slack_s
        seconds += record.comm_s - comm.measured_s
        return LinkSample(
            comm.bits / self._exchanges,
            seconds / self._exchanges + self._measured.latency_s,
            at_most=record.comm_s <= self._exchanges * _NO_STALL_S,
        )

    def _work(self, batch: int, length: int) -> Cost:
        """Return what does not depend on the link: `work` without its cache."""
        energy = self._energy
        return Cost(
            self._compute.at(batch, length),
            self._staging.at(batch, length),
            other_s=self._other.at(batch, length),
            energy_j=energy.at(batch, length) if energy else None,
            extrapolated=self._total.extrapolates(batch, length),
            energy_extrapolated=energy.extrapolates(batch, length) if energy else False,
        )

    def _under(self, link: LinkState) -> _LinkSurfaces:
        key = (link.bandwidth_bps, link.latency_s)
        surfaces = self._by_link.get(key)
        if surfaces is None:
            surfaces = (self._comm.under(link), self._input.under(link), self._output.under(link))
            self._by_link[key] = surfaces
            if len(self._by_link) > _LINKS_KEPT:
                self._by_link.popitem(last=False)
        return surfaces

    def _part(
        self, entries: tuple[Measurement, ...], time: Callable[[Measurement], LinkTime]
    ) -> LinkPart:
        times = {(entry.batch, entry.length): time(entry) for entry in entries}
        return LinkPart(times, self._measured)

    def _measured_comm(self, entry: Measurement) -> LinkTime:
        return self._comm_time(
            entry.batch, entry.length, entry.comm_s.median, entry.compute_s.median
        )

    def _comm_time(self, batch: int, length: int, comm_s: float, compute_s: float) -> LinkTime:
        if not self._exchanges:
            return LinkTime(comm_s)
        size = exchange_bytes(self.plan, self._model, batch, length, self._link.shared)
        bits = self._exchanges * wire_bits(size, self._link)
        if self._link.exchange == "blocking":
            return self._moved(comm_s, bits, self._exchanges)
        slack_s = 0.0
        if comm_s <= self._exchanges * _NO_STALL_S:
            spare_s = cover_s(self.plan, self._model, compute_s)
            spare_s -= transfer_s(size, self._link, self._measured)
            slack_s = self._exchanges * max(0.0, spare_s)
        return LinkTime(comm_s, bits, self._exchanges, slack_s)

    def _measured_input(self, entry: Measurement) -> LinkTime:
        if self.plan.strategy == "sequence":
            copies = float(self.plan.size - 1)
        else:
            copies = self._helper_part
        bits = 8 * copies * self._payload.inputs(entry.batch, entry.length)
        measured_s = entry.input_s.median
        if self._link.exchange == "blocking":
            return self._moved(measured_s, bits, 1)
        if not copies:
            return LinkTime(measured_s)
        # With lag the first node computes a block more before it waits for a helper that started
        # late.
        slack_s = 0.0
        arrival_s = bits / self._measured.bandwidth_bps + self._measured.latency_s
        if self.plan.lag and measured_s < arrival_s:
            spare_s = cover_s(self.plan, self._model, entry.compute_s.median)
            slack_s = max(0.0, spare_s - arrival_s)
        return LinkTime(measured_s, bits, 1, slack_s)

    def _measured_output(self, entry: Measurement) -> LinkTime:
        if self.plan.strategy == "sequence":
            # At most every helper's rows come back; less was measured where the model needs less.
            size = 4.0 * entry.batch * entry.length * self._model.hidden
        else:
            size = self._payload.outputs(entry.batch, entry.length)
        return self._moved(entry.output_s.median, 8 * self._helper_part * size, 1)

    def _moved(self, measured_s: float, bits: float, waits: int) -> LinkTime:
        """Split a time into what scales with the link and what does not."""
        if not measured_s:
            return LinkTime(0.0)
        scaling = min(bits, measured_s * self._link.bandwidth_bps)
        return LinkTime(measured_s, scaling, 0 if self._link.latency_s is None else waits)

    @property
    def _helper_part(self) -> float:
        """Part of rows or positions that leaves the first node."""
        if self.plan.strategy == "local":
            return 1.0 if self.plan.nodes else 0.0
        if self.plan.shares:
            return 1.0 - self.plan.shares[0] / sum(self.plan.shares)
        return 1.0 - 1.0 / self.plan.size


def _surface(entries: tuple[Measurement, ...], value: Callable[[Measurement], float]) -> Surface:
    return Surface({(entry.batch, entry.length): value(entry) for entry in entries})


def _other_s(entry: Measurement) -> float:
    parts = (entry.compute_s, entry.staging_s, entry.comm_s, entry.input_s, entry.output_s)
    rest_s = entry.total_s.median - sum(part.median for part in parts)
    return rest_s if rest_s > _ROUNDING_S else 0.0
