"""What to measure: few plans at few sizes, and some points kept back to test the prediction."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from prism.errors import InputError
from prism.perfmap import NodeInfo
from prism.plan import PRECISIONS, ModelShape, Plan, Precision, Wire

HELD_OUT_RUNS = 3
LEAST_RUNS = 2
_MOST_RUNS = 7
# Nodes whose times differ by less than this factor share equally: noise is no reason to differ.
_ALIKE = 1.25


class Point(NamedTuple):
    """One plan at one batch size and length."""

    plan: Plan
    batch: int
    length: int


@dataclass(frozen=True, slots=True)
class Settings:
    """How far a profile goes.

    Attributes:
        batches: batch sizes measured; others are interpolated. None = chosen for the model.
        segments: numbers of means per partition measured.
        passes: about how many forward passes the whole profile may take.
        held_out: points measured at the end to test the prediction.
        seed: chooses the held-out points.
        lengths: positions per sample measured; None = chosen for the model.
        budget_s: about how long measuring may take, link included; None = as long as it takes.
        precisions: of the computation, measured as far as every node can; None = all of those.
    """

    batches: tuple[int, ...] | None = None
    segments: tuple[int, ...] = (4, 10)
    passes: int = 200
    held_out: int = 8
    seed: int = 0
    lengths: tuple[int, ...] | None = None
    budget_s: float | None = None
    precisions: tuple[Precision, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("batches", "segments", "lengths"):
            values = getattr(self, name)
            if values is None:
                continue
            if not values or min(values) < 1 or len(set(values)) != len(values):
                raise InputError(f"{name} must be distinct numbers of at least 1, not {values}")
        if self.budget_s is not None and not 0 < self.budget_s < math.inf:
            raise InputError(f"budget_s must be above 0, not {self.budget_s}; None = no limit")
        unknown = [each for each in self.precisions or () if each not in PRECISIONS]
        if unknown or "float32" not in (self.precisions or PRECISIONS):
            raise InputError(
                f"precisions must be some of {', '.join(PRECISIONS)}, with float32 among them, "
                f"not {self.precisions}"
            )
        if self.passes < 1 or self.held_out < 0:
            raise InputError(
                f"passes must be at least 1 and held_out not negative, not {self.passes} and "
                f"{self.held_out}"
            )


def plans_alone(names: Sequence[str]) -> tuple[Plan, ...]:
    """Return the plans that run on each node alone; splits by rows follow from them."""
    return (Plan(), *(Plan("local", (name,)) for name in names[1:]))


def plans_alone_at(nodes: Sequence[NodeInfo], precisions: Sequence[Precision]) -> tuple[Plan, ...]:
    """Return the plans of one node at other precisions than float32: on one node of each kind.

    Args:
        nodes: of the cluster, in its order.
        precisions: that every node can compute at.
    """
    kinds: dict[Hashable, tuple[str, ...]] = {}
    for node in nodes:
        name = () if node is nodes[0] else (node.name,)
        kinds.setdefault(node.kind, name)
    return tuple(
        Plan("local", name, precision=precision)
        for precision in precisions
        if precision != "float32"
        for name in kinds.values()
    )


def plans_together_at(plans: Sequence[Plan], precisions: Sequence[Precision]) -> tuple[Plan, ...]:
    """Return the plans on several nodes worth measuring at other precisions than float32.

    The most means, without and with lag: what loses least and what hides most. The planner derives
    the others from float32, and splits by rows from the nodes.

    Args:
        plans: measured in float32.
        precisions: that every node can compute at.
    """
    most = max((plan.means or 0 for plan in plans), default=0)
    best = [plan for plan in plans if loses_least(plan, most)]
    return tuple(
        replace(plan, precision=precision)
        for precision in precisions
        if precision != "float32"
        for plan in best
    )


def loses_least(plan: Plan, most: int) -> bool:
    """Return whether a plan sends as many cluster means as any; if none has, all rows in float16.

    Args:
        plan: any.
        most: the largest number of means of any plan; 0 = no plan has means.
    """
    if not most:
        return plan.exchanges and plan.wire != "float32"
    return plan.means == most and plan.grouping == "clusters"


def plans_together(
    model: ModelShape, segments: Sequence[int], alone_s: Sequence[float]
) -> tuple[Plan, ...]:
    """Return the plans on several nodes worth measuring, for 2 to P nodes.

    The batch split, which shows what nodes cost each other; full exchange; each number of cluster
    means with float16 on the wire, without and with lag; and the largest number of segment means,
    which lose more, to compare with. Where no means are defined it is full exchange in float16.
    Nodes of different speed get positions in proportion to it.

    Args:
        model: rotary models know no lag, windowed ones no means.
        segments: numbers of means per partition.
        alone_s: what the same work took on each node alone, in the cluster's order.
    """
    plans = []
    lags = (0,) if model.rotary else (0, 1)
    wire: Wire = "float16"
    for size in range(2, len(alone_s) + 1):
        full = Plan("sequence", count=size, shares=balanced_shares(alone_s[:size]))
        plans += [Plan("batch", count=size), full]
        if model.windowed:
            plans.append(replace(full, wire=wire))
            continue
        plans += [
            replace(full, means=count, grouping="clusters", lag=lag, wire=wire)
            for count in segments
            for lag in lags
        ]
        plans.append(replace(full, means=max(segments), wire=wire))
    return tuple(plans)


def balanced_shares(alone_s: Sequence[float]) -> tuple[float, ...]:
    """Return shares in percent that let all nodes end together; none when they are alike."""
    if max(alone_s) < _ALIKE * min(alone_s):
        return ()
    speeds = [1 / seconds for seconds in alone_s]
    return tuple(float(max(1, round(100 * speed / sum(speeds)))) for speed in speeds)


def points_for(
    plans: Sequence[Plan],
    batches: Sequence[int],
    lengths: Sequence[int],
    few: Sequence[Plan] = (),
) -> tuple[tuple[Point, ...], ...]:
    """Return the points to measure, grouped: plans at the same size take turns.

    A split of a batch too small for its nodes is measured at the smallest that is not.

    Args:
        plans: at every size.
        batches: rows.
        lengths: positions per row.
        few: plans at the corners only: the smallest and the largest batch, of the shortest and the
            longest samples.
    """
    groups = []
    known: set[Point] = set()
    for length in lengths:
        for batch in sorted(batches):
            corner = batch in (min(batches), max(batches)) and length in (
                min(lengths),
                max(lengths),
            )
            points = (
                Point(plan, max(batch, plan.least_batch), length)
                for plan in (*plans, *(few if corner else ()))
                if length >= plan.least_length
            )
            groups.append(tuple(point for point in points if point not in known))
            known.update(groups[-1])
    return tuple(groups)


def thinned(
    groups: tuple[tuple[Point, ...], ...], settings: Settings
) -> tuple[tuple[Point, ...], ...]:
    """Return the groups, of fewer points where the passes do not suffice for all.

    Costs are all but linear in batch and length, so plans other than `local` then make do with the
    smallest and the largest of both.
    """
    points = [point for group in groups for point in group]
    if len(points) <= _available(settings) // (1 + LEAST_RUNS):
        return groups
    sizes: dict[Plan, list[Point]] = {}
    for point in points:
        sizes.setdefault(point.plan, []).append(point)
    return tuple(
        tuple(each for each in group if each.plan == Plan() or is_corner(each, sizes[each.plan]))
        for group in groups
    )


def is_corner(point: Point, points: Sequence[Point]) -> bool:
    """Return whether a point has the smallest or largest batch and length of all `points`."""
    batches = [each.batch for each in points]
    lengths = [each.length for each in points]
    return point.batch in (min(batches), max(batches)) and point.length in (
        min(lengths),
        max(lengths),
    )


def runs_per_point(settings: Settings, points: int) -> int:
    """Return how often each point is run, so that the whole stays within the passes."""
    return max(LEAST_RUNS, min(_MOST_RUNS, _available(settings) // max(1, points) - 1))


def _available(settings: Settings) -> int:
    """Return the passes left for what goes into the map; one more per point warms it up."""
    return settings.passes - (1 + HELD_OUT_RUNS) * settings.held_out


def held_out_points(
    settings: Settings, plans: Sequence[Plan], batches: Sequence[int], lengths: Sequence[int]
) -> tuple[Point, ...]:
    """Return points between the measured batch sizes, one plan after the other."""
    between = [batch for low, high in pairwise(sorted(batches)) for batch in range(low + 1, high)]
    if not between or not settings.held_out:
        return ()
    chooser = random.Random(settings.seed)
    turn = [plan for plan in plans if plan == Plan() or plan.size > 1]
    # Derived are most of the costs at other precisions, so that these are tested first.
    turn.sort(key=lambda plan: (plan != Plan(), plan.precision == "float32"))
    chosen = []
    for number in range(settings.held_out):
        plan = turn[number % len(turn)]
        # The smallest batch that can be split was measured.
        possible = [batch for batch in between if batch > plan.least_batch]
        if possible:
            chosen.append(Point(plan, chooser.choice(possible), chooser.choice(lengths)))
    return tuple(dict.fromkeys(chosen))
