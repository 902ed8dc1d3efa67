"""Energy results: what one node read in one window, and the sum over the nodes of a cluster.

A number without its scope misleads (a GPU's joules are not a board's), and an unknown must never
look like a zero, so scope, quality and the reason for a missing value travel with every value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prism.errors import InputError
from prism.record import Quality


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """Energy of one window on one node.

    Attributes:
        joules: energy of the window; None when it is unknown.
        scope: what the joules cover: rail, domain or model, and the node.
        quality: `measured` or `estimated`; None exactly when `joules` is None.
        duration_s: length of the window the joules belong to.
        node: name of the node; empty when the owner gave none.
        domain: identity of the hardware that was read. Two nodes with the same domain share one
            sensor (node processes on one machine); empty when the reading is the node's own.
        reason: why `joules` is None; None when it is known.
    """

    joules: float | None
    scope: str
    quality: Quality | None
    duration_s: float
    node: str = ""
    domain: str = ""
    reason: str | None = None

    def __post_init__(self) -> None:
        known = self.joules is not None
        assert (self.quality is not None) == known, "a known value has a quality"
        assert (self.reason is None) == known, "an unknown value has a reason"
        assert self.duration_s > 0 or not known, "a known value has a duration"

    @property
    def watts(self) -> float | None:
        """Mean power over the window, None when unknown."""
        return self.joules / self.duration_s if self.joules is not None else None


def unknown(scope: str, duration_s: float, reason: str) -> EnergyReading:
    """Return a reading without joules and the reason for it."""
    return EnergyReading(None, scope, None, duration_s, reason=reason)


@dataclass(frozen=True, slots=True)
class ClusterEnergy:
    """Energy of one piece of work over all the nodes that took part.

    Attributes:
        joules: the sum; None when any node could not measure.
        partial_j: the sum over the nodes that could; None when none could.
        missing: the nodes that could not, each with its reason.
        scope: the scopes that were summed.
        quality: `measured` only when every summed value was; None when there is none.
    """

    joules: float | None
    partial_j: float | None
    missing: tuple[tuple[str, str], ...]
    scope: str
    quality: Quality | None


def combine(readings: Sequence[EnergyReading]) -> ClusterEnergy:
    """Sum readings of different nodes over the same piece of work.

    Nodes that share a sensor (equal `domain`) have each seen the energy of all of them: the
    largest of their readings, that of the longest window, counts once.

    Raises:
        InputError: there are no readings, or two belong to the same named node.
    """
    if not readings:
        raise InputError("no energy readings to combine; give one reading per node")
    names = [reading.node for reading in readings if reading.node]
    if len(set(names)) != len(names):
        raise InputError(f"a node has two energy readings ({', '.join(names)}); give one per node")
    counted: dict[str, tuple[float, EnergyReading]] = {}
    missing: list[tuple[str, str]] = []
    for place, reading in enumerate(readings):
        if reading.joules is None:
            missing.append((reading.node or f"#{place}", reading.reason or ""))
            continue
        key = reading.domain or f"#{place}"
        if key not in counted or counted[key][0] < reading.joules:
            counted[key] = (reading.joules, reading)
    if not counted:
        return ClusterEnergy(None, None, tuple(missing), "none", None)
    partial_j = sum(joules for joules, _ in counted.values())
    kept = [reading for _, reading in counted.values()]
    return ClusterEnergy(
        joules=None if missing else partial_j,
        partial_j=partial_j,
        missing=tuple(missing),
        scope=" + ".join(reading.scope for reading in kept),
        quality="measured" if all(r.quality == "measured" for r in kept) else "estimated",
    )
