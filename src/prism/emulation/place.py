"""An emulated link of this machine: what wraps each end of it, made from text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prism.emulation.delivery import EmulatedDelivery
from prism.emulation.factory import EmulatedFactory
from prism.emulation.link import LinkShape
from prism.emulation.medium import Medium
from prism.errors import ConfigError
from prism.transport.factory import TransportFactory


@dataclass(frozen=True, slots=True)
class EmulatedLink:
    """A link between the nodes of this machine, as one process sees it.

    Attributes:
        shape: what the link does.
        medium: the air all nodes share.
        places: each node's index on the medium, by name; "" is the coordinator, which sits on the
            first node's device.
    """

    shape: LinkShape
    medium: Medium
    places: Mapping[str, int]

    @classmethod
    def open(cls, text: str, path: Path, names: Sequence[str]) -> EmulatedLink | None:
        """Open the medium at `path` for the nodes `names`; None when `text` shapes nothing.

        Args:
            text: the link, as `LinkShape.parse` reads it.
            path: the same file for every process of the cluster.
            names: all nodes, the one on the coordinator's own device first.

        Raises:
            ConfigError: the text is no link, or the file belongs to another cluster.
        """
        shape = LinkShape.parse(text)
        if shape == LinkShape():
            return None
        places = {"": 0, **{name: index for index, name in enumerate(names)}}
        return cls(shape, Medium(path, shape, len(names)), places)

    def delivery(self, name: str = "") -> EmulatedDelivery:
        """Return what delays the control messages of a node; "" is the coordinator.

        Raises:
            ConfigError: no such node is on this link.
        """
        if name not in self.places:
            known = ", ".join(each for each in self.places if each)
            raise ConfigError(f"{name!r} is not on the emulated link; its nodes are {known}")
        return EmulatedDelivery(self.medium, self.places, name)

    def factory(self, inner: TransportFactory) -> EmulatedFactory:
        """Return what delays the frames between nodes on the transports of `inner`."""
        return EmulatedFactory(inner, self.shape, self.medium, self.places)

    def reshape(self, text: str) -> None:
        """Change the link for all nodes while they run.

        Raises:
            ConfigError: the text is no link, or of another kind than the one there is.
        """
        shape = LinkShape.parse(text)
        if shape.shared != self.shape.shared:
            raise ConfigError(f"link {text!r}: whether the medium is shared cannot change")
        self.medium.reshape(shape)

    def close(self) -> None:
        """Release the medium; close what uses it before. Safe to call twice."""
        self.medium.close()
