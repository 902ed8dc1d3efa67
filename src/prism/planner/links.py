"""The links that a plan depends on: one from the first node to every helper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from prism.record import LinkState


@dataclass(frozen=True, slots=True)
class Links:
    """The link to each helper, as it is now.

    Attributes:
        default: link to a helper that is not named in `by_helper`.
        by_helper: link by name of the helper.
    """

    default: LinkState
    by_helper: Mapping[str, LinkState] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, links: AnyLinks, default: LinkState) -> Links:
        """Return links as `Links`.

        Args:
            links: one state for all helpers alike, or states by helper.
            default: for helpers that a mapping does not name.
        """
        if isinstance(links, Links):
            return links
        if isinstance(links, LinkState):
            return cls(links)
        return cls(default, dict(links))

    def to(self, helper: str) -> LinkState:
        """Return the link to one helper."""
        return self.by_helper.get(helper, self.default)

    def slowest(self, helpers: Iterable[str]) -> LinkState:
        """Return what limits a plan on these helpers: the least bandwidth, the most latency."""
        return slowest_of([self.to(name) for name in helpers] or [self.default])

    def at_bandwidth(self, bandwidth_bps: float) -> Links:
        """Return the same links with one bandwidth, as a sweep supposes."""
        return Links(
            replace(self.default, bandwidth_bps=bandwidth_bps),
            {
                name: replace(link, bandwidth_bps=bandwidth_bps)
                for name, link in self.by_helper.items()
            },
        )


def slowest_of(links: Sequence[LinkState]) -> LinkState:
    """Return what limits a plan on some links, at least one: see `Links.slowest`."""
    narrowest = min(links, key=lambda link: link.bandwidth_bps)
    return replace(narrowest, latency_s=max(link.latency_s for link in links))


AnyLinks: TypeAlias = LinkState | Mapping[str, LinkState] | Links
