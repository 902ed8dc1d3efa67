"""What each node costs alone at a precision: as measured, as on a node alike, or derived."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from statistics import median

from prism.perfmap import PerformanceMap
from prism.plan import Plan, Precision
from prism.planner.cost import PlanCost

# Nodes of one kind whose computation differs by more than this factor are not alike after all.
_ALIKE = 1.25


def hardware_of(perf: PerformanceMap) -> dict[str, Hashable]:
    """Return by node of a map, in its order, what tells whether two nodes are alike."""
    return {node.name: node.kind for node in perf.nodes}


def nodes_alone(
    perf: PerformanceMap, by_shape: Mapping[str, PlanCost], precision: Precision
) -> dict[str, PlanCost]:
    """Return the cost of running alone at a precision, by node; one that nobody knows is absent.

    Args:
        perf: the map.
        by_shape: its plans, measured or derived.
        precision: of the computation.
    """
    hardware = hardware_of(perf)
    own = {
        name: cost
        for name in hardware
        if (cost := by_shape.get(_shape(perf, name, precision))) is not None
    }
    measured = {name: cost for name, cost in own.items() if not cost.derived}
    alone = {}
    for name in hardware:
        alike = (other for other in measured if hardware[other] == hardware[name])
        found = measured.get(name) or next(
            (measured[other] for other in alike if _as_fast(perf, name, other)), own.get(name)
        )
        if found:
            alone[name] = found
    return alone


def _as_fast(perf: PerformanceMap, name: str, other: str) -> bool:
    """Whether two nodes of one kind computed alike in float32, as far as both were measured."""
    theirs = {
        (entry.batch, entry.length): entry.compute_s.median
        for entry in perf.by_shape.get(_shape(perf, other, "float32"), ())
    }
    ratios = [
        entry.compute_s.median / seconds
        for entry in perf.by_shape.get(_shape(perf, name, "float32"), ())
        if (seconds := theirs.get((entry.batch, entry.length)))
    ]
    return not ratios or 1 / _ALIKE <= median(ratios) <= _ALIKE


def _shape(perf: PerformanceMap, name: str, precision: Precision) -> str:
    nodes = () if name == perf.nodes[0].name else (name,)
    return str(Plan("local", nodes, precision=precision))
