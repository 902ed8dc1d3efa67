"""Plans at a precision of which only a few were measured: derived from float32 and from these few.

A precision changes how long computation takes, and with it what an exchange can hide behind; what
crosses the link stays the same. So a plan at a precision follows from the plan in float32 and from
`local` at both: its computation takes the part that `local` takes with as many rows, its stalls are
those in float32 with so much less to hide behind. Where the plan, or one on as many nodes, was
measured at some sizes, the others are corrected by how far computation was off there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple, TypeAlias

from prism.perfmap import Measurement, PerformanceMap, Stat, Surface
from prism.plan import PRECISIONS, Plan, Precision
from prism.planner.cost import NO_STALL_S
from prism.planner.strategies import strategy_of
from prism.planner.traffic import (
    cover_s,
    exchange_bytes,
    exchange_count,
    helper_input_bytes,
    transfer_s,
)

Size: TypeAlias = tuple[int, int]


class Known(NamedTuple):
    """What is known of one plan shape.

    Attributes:
        entries: of the shape, one per batch and length.
        derived: batch and length of those that nobody measured.
    """

    entries: tuple[Measurement, ...]
    derived: frozenset[Size] = frozenset()


def precisions_of(perf: PerformanceMap) -> tuple[Precision, ...]:
    """Return the precisions at which the first node was measured alone; none without float32."""
    if str(Plan()) not in perf.by_shape:
        return ()
    return tuple(each for each in PRECISIONS if str(Plan(precision=each)) in perf.by_shape)


def covered_plans(perf: PerformanceMap) -> tuple[Plan, ...]:
    """Return the plans, nodes counted, that a map has measured or that derive from these."""
    return tuple(map(Plan.parse, known_plans(perf)))


def known_plans(perf: PerformanceMap) -> dict[str, Known]:
    """Return by shape what is known of every plan, measured ones first.

    Derived are, at each precision at which the first node was measured alone, the plans of one node
    and those that exchange, at the sizes at which they were measured in float32. Splits by rows
    follow from their nodes anyway.
    """
    found = {shape: Known(entries) for shape, entries in perf.by_shape.items()}
    for precision in precisions_of(perf):
        if precision != "float32":
            found |= _Derivation(perf, precision).plans()
    return found


class _Derivation:
    """Takes the plans of a map from float32 to one precision."""

    def __init__(self, perf: PerformanceMap, precision: Precision) -> None:
        self._perf = perf
        self._gain = _Gain(
            perf.by_shape[str(Plan())], perf.by_shape[str(Plan(precision=precision))]
        )
        in_float32 = {
            plan: entries
            for shape, entries in perf.by_shape.items()
            if (plan := Plan.parse(shape)).precision == "float32"
            and not strategy_of(plan).divides_rows
        }
        self._in_float32 = {
            replace(plan, precision=precision): entries for plan, entries in in_float32.items()
        }
        self._runs = {plan: self._ran(plan) for plan in self._in_float32}

    def plans(self) -> dict[str, Known]:
        """Return the plans at the precision, as measured and derived at all other sizes."""
        found = {}
        for plan, entries in self._in_float32.items():
            known = self._measured(plan)
            added = {
                _size(entry): self._entry(plan, entry, self._corrected_s(plan, entry))
                for entry in entries
                if _size(entry) not in known
            }
            found[plan.shape] = Known((*known.values(), *added.values()), frozenset(added))
        return found

    def _measured(self, plan: Plan) -> dict[Size, Measurement]:
        return {_size(entry): entry for entry in self._perf.by_shape.get(plan.shape, ())}

    def _ran(self, plan: Plan) -> dict[Size, _Computed]:
        """Return how long a plan computed and should have, at each size measured."""
        known = self._measured(plan)
        return {
            _size(entry): _Computed(_computed_s(known[_size(entry)]), self._derived_s(plan, entry))
            for entry in self._in_float32[plan]
            if _size(entry) in known
        }

    def _derived_s(self, plan: Plan, entry: Measurement) -> float:
        """Return how long a plan computes if it gains what `local` does with as many rows."""
        part = self._gain.part(max(1, entry.batch // plan.size), entry.length)
        return _computed_s(entry) * part

    def _corrected_s(self, plan: Plan, entry: Measurement) -> float:
        """Return how long a plan computes, by how far the nearest run was from what is derived.

        Runs of the plan itself, or if there are none, of those that split positions as often.
        """
        derived_s = self._derived_s(plan, entry)
        alike = [runs for other, runs in self._runs.items() if _split_alike(plan, other)]
        found = [
            runs[min(runs, key=lambda size: _apart(size, _size(entry)))]
            for runs in ([self._runs[plan]] if self._runs[plan] else alike)
            if runs
        ]
        return median(each.led_on_to(derived_s) for each in found) if found else derived_s

    def _entry(self, plan: Plan, entry: Measurement, compute_s: float) -> Measurement:
        """Return a measurement in float32 as it would be at the precision.

        Args:
            plan: at the precision.
            entry: in float32.
            compute_s: at the precision.
        """
        size = _size(entry)
        part = compute_s / _computed_s(entry) if _computed_s(entry) else 1.0
        comm_s = _stalls_s(plan, entry, part, self._perf)
        input_s = _input_s(plan, entry, part, self._perf)
        shorter_s = entry.compute_s.median + entry.comm_s.median + entry.input_s.median
        total_s = max(0.0, entry.total_s.median - shorter_s) + compute_s + comm_s + input_s
        energy_j = None
        power = self._gain.power(*size)
        if entry.energy_j and power is not None:
            energy_j = Stat(entry.energy_j.median * power * total_s / entry.total_s.median)
        return replace(
            entry,
            plan=plan.shape,
            total_s=Stat(total_s),
            compute_s=Stat(compute_s),
            comm_s=Stat(comm_s),
            input_s=Stat(input_s),
            energy_j=energy_j,
        )


class _Computed(NamedTuple):
    """How long a plan computed at one size, and how long it should have as derived."""

    measured_s: float
    derived_s: float

    def led_on_to(self, derived_s: float) -> float:
        """Return how long it computes at a size where so much is derived.

        What it took longer are fixed costs, which do not grow with the work; what it took less is
        gained with every row.
        """
        if self.measured_s >= self.derived_s:
            return derived_s + self.measured_s - self.derived_s
        return derived_s * self.measured_s / self.derived_s


class _Gain:
    """What a precision gains on the first node alone, at every size.

    Beyond the sizes measured at the precision it is what it is at the nearest.
    """

    def __init__(self, float32: Sequence[Measurement], other: Sequence[Measurement]) -> None:
        self._batches = min(e.batch for e in other), max(e.batch for e in other)
        self._lengths = min(e.length for e in other), max(e.length for e in other)
        self._computed = _surface(float32, _computed_s), _surface(other, _computed_s)
        self._took = _surface(float32, _total_s), _surface(other, _total_s)
        self._energies = None
        if all(entry.energy_j for entry in (*float32, *other)):
            self._energies = _surface(float32, _energy_j), _surface(other, _energy_j)

    def part(self, batch: int, length: int) -> float:
        """Return the part of the computation in float32 that is needed; above 1 is slower."""
        return self._ratio(self._computed, batch, length)

    def power(self, batch: int, length: int) -> float | None:
        """Return how many times the power in float32 is drawn; None where nobody metered it."""
        if not self._energies:
            return None
        energy = self._ratio(self._energies, batch, length)
        return energy / self._ratio(self._took, batch, length)

    def _ratio(self, surfaces: tuple[Surface, Surface], batch: int, length: int) -> float:
        batch = min(max(batch, self._batches[0]), self._batches[1])
        length = min(max(length, self._lengths[0]), self._lengths[1])
        float32, other = (surface.at(batch, length) for surface in surfaces)
        return other / float32 if float32 else 1.0


def _stalls_s(plan: Plan, entry: Measurement, part: float, perf: PerformanceMap) -> float:
    """Return the stalls of a plan's exchanges, with `part` as much computation to hide behind.

    The stall in float32 tells how much was hidden, as `cost` has it; where all was, the block's
    arithmetic says how much more would have been. Waiting beyond an exchange's own time, for a
    slower peer, is left as it was.
    """
    model, link = perf.model, perf.link
    stalled_s, count = entry.comm_s.median, exchange_count(plan, model, link)
    if not count or link.exchange == "blocking":
        return stalled_s
    size = exchange_bytes(plan, model, entry.batch, entry.length, link.shared)
    takes_s = transfer_s(size, link, link.state())
    hidden_s = takes_s - stalled_s / count
    if stalled_s <= count * NO_STALL_S:
        hidden_s = max(takes_s, cover_s(plan, model, entry.compute_s.median))
    return count * _not_hidden_s(takes_s, hidden_s, part)


def _input_s(
    plan: Plan,
    entry: Measurement,
    part: float,
    perf: PerformanceMap,
) -> float:
    """Return the time spent on inputs; with lag a block of rank 0's computation hides them."""
    spent_s = entry.input_s.median
    if not plan.lag or perf.link.exchange == "blocking":
        return spent_s
    sent = helper_input_bytes(plan, perf.model, perf.payload, entry.batch, entry.length)
    nbytes, state = sum(sent), perf.link.state()
    takes_s = 8 * nbytes / state.bandwidth_bps + state.latency_s if nbytes else 0.0
    hidden_s = takes_s - spent_s
    if spent_s <= NO_STALL_S:
        hidden_s = max(takes_s, cover_s(plan, perf.model, entry.compute_s.median))
    return _not_hidden_s(takes_s, hidden_s, part)


def _not_hidden_s(takes_s: float, hidden_s: float, part: float) -> float:
    """Return what is waited for, of what takes so long, once less or more of it is hidden."""
    return max(0.0, takes_s - (hidden_s * part if hidden_s > 0 else hidden_s))


def _split_alike(plan: Plan, other: Plan) -> bool:
    return plan.exchanges and other.exchanges and other.size == plan.size


def _apart(size: Size, other: Size) -> float:
    return sum(abs(math.log(mine / theirs)) for mine, theirs in zip(size, other, strict=True))


def _size(entry: Measurement) -> Size:
    return entry.batch, entry.length


def _computed_s(entry: Measurement) -> float:
    return entry.compute_s.median


def _total_s(entry: Measurement) -> float:
    return entry.total_s.median


def _energy_j(entry: Measurement) -> float:
    assert entry.energy_j is not None
    return entry.energy_j.median


def _surface(entries: Sequence[Measurement], value: Callable[[Measurement], float]) -> Surface:
    return Surface({_size(entry): value(entry) for entry in entries})
