"""Predicted cost of a plan the map has measured: its computation, and the link as it is now.

Computation and staging do not depend on the link and are interpolated as measured. What crosses
the link is first predicted *at the measured points* for the current link, and only then
interpolated, so that predictions never fall as the batch grows, however noisy the map.

At the measured link every prediction equals the measurement. From there two models lead on:

- `overlapped` maps. An exchange stalls for `max(0, transfer - hidden)`. The measured stall gives
  `hidden` for every point by itself: `transfer at the measured link - stall`. Where an exchange
  was hidden entirely only a bound is known, and `traffic.cover_s` supplies the rest. The
  transfer of inputs to the helpers is treated alike: all of its bytes scale, whatever part was
  waited for.
- `blocking` maps, the paper's among them: all of the communication stood still. It is split into
  bytes over bandwidth, at most what was measured, which scales with the link, and a fixed rest.
  Input and output follow this model too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import chain, combinations

from prism.perfmap import MapLink, Measurement, Payload, Surface
from prism.plan import ModelShape, Plan
from prism.planner.answers import WHOLE, Wanted
from prism.planner.link_estimate import LinkSample
from prism.planner.link_part import LinkPart, LinkTime
from prism.planner.parts import Cost, slowed, with_energy_for
from prism.planner.strategies import strategy_of
from prism.planner.traffic import (
    brought_rows,
    cover_s,
    exchange_bytes,
    exchange_count,
    transfer_s,
    wire_bits,
)
from prism.record import LinkState, RunRecord

# A wait this short found its data there: waking up takes as long.
NO_STALL_S = 50e-6
_ROUNDING_S = 1e-9
_LINKS_KEPT = 8
_POINTS_KEPT = 4096

_LinkSurfaces = tuple[Surface, Surface, Surface]


class PlanCost:
    """Predicts one measured plan shape; for `brings_rows` see `traffic.brought_rows`."""

    def __init__(
        self,
        entries: tuple[Measurement, ...],
        model: ModelShape,
        link: MapLink,
        payload: Payload,
        wanted: Wanted = WHOLE,
        derived: AbstractSet[tuple[int, int]] = frozenset(),
    ) -> None:
        """Take all measurements of one shape, and from the map what they were measured with.

        Args:
            entries: of one shape; their outputs were whole.
            model: of the map.
            link: of the map.
            payload: of the map.
            wanted: the form of output to predict for.
            derived: batch and length of the entries that nobody measured.

        Raises:
            RequestError: a point is too short for the plan's nodes.
        """
        self.plan = Plan.parse(entries[0].plan)
        self._on_first = self.plan == Plan(precision=self.plan.precision)
        self._strategy = strategy_of(self.plan)
        self._model = model
        self._link = link
        self._measured = link.state()
        self._payload = payload
        self._wanted = wanted
        self._exchanges = exchange_count(self.plan, model, link)
        self._compute = _surface(entries, lambda entry: entry.compute_s.median)
        self._staging = _surface(entries, lambda entry: entry.staging_s.median)
        self._other = _surface(entries, _other_s)
        self._total = _surface(entries, lambda entry: entry.total_s.median)
        known = [each for each in entries if (each.batch, each.length) not in derived]
        self._known = _surface(tuple(known), lambda entry: entry.total_s.median) if known else None
        self._partly_derived = bool(derived)
        metered = {(e.batch, e.length): e.energy_j.median for e in entries if e.energy_j}
        self._energy = Surface(metered) if metered else None
        costs = {(entry.batch, entry.length): _as_measured(entry) for entry in entries}
        times = {point: self._link_times(cost, *point) for point, cost in costs.items()}
        self._comm, self._input, self._output = (
            LinkPart({point: parts[index] for point, parts in times.items()}, self._measured)
            for index in range(3)
        )
        self.brings_rows = brought_rows(entries, self.plan, model, link)
        self._by_link = OrderedDict[tuple[float, float], _LinkSurfaces]()
        self.work: Callable[[int, int], Cost] = lru_cache(maxsize=_POINTS_KEPT)(self._work)

    @property
    def derived(self) -> bool:
        """Whether nobody measured the plan at any size."""
        return self._known is None

    def at(self, batch: int, length: int, link: LinkState, slowdown: float = 1.0) -> Cost:
        """Return the predicted cost of one batch.

        Args:
            batch: rows.
            length: positions per row.
            link: the slowest of the plan's links.
            slowdown: computation takes so many times as long as measured.
        """
        work = self.work(batch, length)
        if self._on_first:
            return slowed(work, slowdown)
        comm, inputs, outputs = self._under(link)
        cost = work._replace(
            compute_s=work.compute_s * slowdown,
            comm_s=comm.at(batch, length),
            input_s=inputs.at(batch, length),
            output_s=outputs.at(batch, length),
        )
        return with_energy_for(cost, self._total.at(batch, length))

    def link_sample(self, record: RunRecord, late_s: float = 0.0) -> LinkSample | None:
        """Return what a run of this plan says about the link, or None if nothing.

        The inverse of the prediction: a stall longer or shorter than measured is put down to the
        link. A run that never stalled only shows that the link was fast enough.

        Args:
            record: rank 0's.
            late_s: part of its stall that waited for a slow helper's computation.
        """
        if not self._exchanges or record.outcome != "ok":
            return None
        at = (record.batch, record.length)
        comm = self._comm_time(self.at(*at, self._measured), *at)
        stalled_s = max(0.0, record.comm_s - late_s)
        seconds = comm.bits / self._measured.bandwidth_bps + comm.slack_s
        seconds += stalled_s - comm.measured_s
        return LinkSample(
            comm.bits / self._exchanges,
            seconds / self._exchanges + self._measured.latency_s,
            at_most=stalled_s <= self._exchanges * NO_STALL_S,
        )

    def timeout_sample(
        self, batch: int, length: int, waited_s: float, slowdown: float
    ) -> LinkSample | None:
        """Return what a run says about the link that had not answered after `waited_s`.

        The inverse of the prediction again, of all that crosses the link: whatever the run took
        beyond the prediction, it took at least so long. None if the link is not to blame.
        """
        here = self.at(batch, length, self._measured)
        parts = [part for part in self._link_times(here, batch, length) if part.bits]
        longer_s = waited_s - here.total_s - here.compute_s * (slowdown - 1.0)
        if not parts or longer_s <= 0:
            return None
        # A part grows once its slack is used up. Of all sets of parts that may have grown, the true
        # one explains the delay with the least time per bit.
        some = chain.from_iterable(combinations(parts, 1 + more) for more in range(len(parts)))
        per_bit_s = 1 / self._measured.bandwidth_bps + min(
            (longer_s + sum(part.slack_s for part in grown)) / sum(part.bits for part in grown)
            for grown in some
        )
        bits = sum(part.bits for part in parts)
        return LinkSample(bits, bits * per_bit_s + self._measured.latency_s, at_least=True)

    def _work(self, batch: int, length: int) -> Cost:
        """Return what does not depend on the link: `work` without its cache."""
        energy = self._energy
        beyond = self._known is None or self._known.extrapolates(batch, length)
        derived = beyond and self._partly_derived
        return Cost(
            self._compute.at(batch, length),
            self._staging.at(batch, length),
            other_s=self._other.at(batch, length),
            energy_j=energy.at(batch, length) if energy else None,
            extrapolated=beyond,
            energy_extrapolated=derived
            or (energy is not None and energy.extrapolates(batch, length)),
            derived=derived,
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

    def _link_times(
        self, measured: Cost, batch: int, length: int
    ) -> tuple[LinkTime, LinkTime, LinkTime]:
        """Return exchanges, inputs and outputs at one point, from what they cost there."""
        return (
            self._comm_time(measured, batch, length),
            self._input_time(measured, batch, length),
            self._output_time(measured, batch, length),
        )

    def _comm_time(self, measured: Cost, batch: int, length: int) -> LinkTime:
        if not self._exchanges:
            return LinkTime(measured.comm_s)
        size = exchange_bytes(self.plan, self._model, batch, length, self._link.shared)
        bits = self._exchanges * wire_bits(size, self._link)
        if self._link.exchange == "blocking":
            return self._moved(measured.comm_s, bits, self._exchanges)
        slack_s = 0.0
        if measured.comm_s <= self._exchanges * NO_STALL_S:
            spare_s = cover_s(self.plan, self._model, measured.compute_s)
            spare_s -= transfer_s(size, self._link, self._measured)
            slack_s = self._exchanges * max(0.0, spare_s)
        return LinkTime(measured.comm_s, bits, self._exchanges, slack_s)

    def _input_time(self, measured: Cost, batch: int, length: int) -> LinkTime:
        bits = 8 * self._strategy.input_bytes(self.plan, self._model, self._payload, batch, length)
        if self._link.exchange == "blocking":
            return self._moved(measured.input_s, bits, 1)
        if not bits:
            return LinkTime(measured.input_s)
        # With lag the first node computes a block more before it waits for a helper that started
        # late.
        slack_s = 0.0
        arrival_s = bits / self._measured.bandwidth_bps + self._measured.latency_s
        if self.plan.lag and measured.input_s < arrival_s:
            spare_s = cover_s(self.plan, self._model, measured.compute_s)
            slack_s = max(0.0, spare_s - arrival_s)
        return LinkTime(measured.input_s, bits, 1, slack_s)

    def _output_time(self, measured: Cost, batch: int, length: int) -> LinkTime:
        whole, wanted = (
            self._strategy.output_bytes(self.plan, self._model, self._payload, form, batch, length)
            for form in (WHOLE, self._wanted)
        )
        time = self._moved(measured.output_s, 8 * whole, 1)
        return time.less(time.bits * (1 - wanted / whole), self._measured) if whole else time

    def _moved(self, measured_s: float, bits: float, waits: int) -> LinkTime:
        """Split a time into what scales with the link and what does not."""
        if not measured_s:
            return LinkTime(0.0)
        scaling = min(bits, measured_s * self._link.bandwidth_bps)
        return LinkTime(measured_s, scaling, 0 if self._link.latency_s is None else waits)


def _surface(entries: tuple[Measurement, ...], value: Callable[[Measurement], float]) -> Surface:
    return Surface({(entry.batch, entry.length): value(entry) for entry in entries})


def _other_s(entry: Measurement) -> float:
    parts = (entry.compute_s, entry.staging_s, entry.comm_s, entry.input_s, entry.output_s)
    rest_s = entry.total_s.median - sum(part.median for part in parts)
    return rest_s if rest_s > _ROUNDING_S else 0.0


def _as_measured(entry: Measurement) -> Cost:
    return Cost(
        entry.compute_s.median,
        entry.staging_s.median,
        entry.comm_s.median,
        entry.input_s.median,
        entry.output_s.median,
    )
