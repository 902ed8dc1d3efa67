"""What a split of positions is solved for, in coarse numbers: alike settings are solved once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from prism.planner.links import Links, slowest_of
from prism.record import LinkState


class Setting(NamedTuple):
    """One request on some nodes.

    Attributes:
        nodes: that run it, rank 0 first.
        batch: rows.
        length: positions per row.
        ways: from the first node to each helper.
        slowdown: by rank, how many times as long as measured computation takes now.
    """

    nodes: tuple[str, ...]
    batch: int
    length: int
    ways: tuple[LinkState, ...]
    slowdown: tuple[float, ...]

    @classmethod
    def of(
        cls,
        nodes: tuple[str, ...],
        batch: int,
        length: int,
        links: Links,
        slowdown: Mapping[str, float],
    ) -> Setting:
        """Return the setting of a request under live links and slowdowns."""
        return cls(
            nodes,
            batch,
            length,
            tuple(_coarse_link(links.to(name)) for name in nodes[1:]),
            tuple(coarse(slowdown.get(name, 1.0)) for name in nodes),
        )

    @property
    def slowest(self) -> LinkState:
        """The link that limits an exchange."""
        return slowest_of(self.ways)


def coarse(value: float) -> float:
    """Return a value with two digits."""
    return float(f"{value:.1e}")


def _coarse_link(link: LinkState) -> LinkState:
    return LinkState(_quarter_octave(link.bandwidth_bps), _quarter_octave(link.latency_s))


def _quarter_octave(value: float) -> float:
    return 2.0 ** (round(4 * math.log2(value)) / 4) if value else 0.0
