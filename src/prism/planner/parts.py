"""The predicted cost of one batch, part by part."""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """Predicted cost of one batch; `other_s` is measured time that belongs to no part.

    `extrapolated` and `energy_extrapolated` tell that time or energy lie beyond what was measured,
    `derived` that they follow from the same plan in float32.
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
    derived: bool = False

    @property
    def total_s(self) -> float:
        """Predicted time of the whole request."""
        return sum(self[:6])


def slowed(cost: Cost, slowdown: float) -> Cost:
    """Return the cost when computation takes `slowdown` times as long."""
    if slowdown == 1.0:
        return cost
    longer = cost._replace(compute_s=cost.compute_s * slowdown)
    return with_energy_for(longer, cost.total_s)


def with_energy_for(cost: Cost, metered_s: float) -> Cost:
    """Return the cost with the energy of a run of `metered_s` carried over to its own time.

    A node that waits is powered as well.
    """
    if cost.energy_j is None or not metered_s:
        return cost
    return cost._replace(energy_j=cost.energy_j * (cost.total_s / metered_s))
