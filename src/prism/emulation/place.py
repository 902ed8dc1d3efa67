"""A node's place on an emulated link of this machine: when its control messages arrive."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prism.emulation.link import LinkShape
from prism.emulation.medium import Medium
from prism.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EmulatedLink:
    """A node's place on an emulated medium of this machine.

    Attributes:
        shape: what the link does.
        medium: the air all nodes share.
        places: each node's index on the medium, by name.
    """

    shape: LinkShape
    medium: Medium
    places: dict[str, int]

    @classmethod
    def open(cls, text: str, path: Path, names: Sequence[str]) -> EmulatedLink | None:
        """Open the medium at `path` for the nodes `names`; None when `text` shapes nothing."""
        shape = LinkShape.parse(text)
        if shape == LinkShape():
            return None
        places = {name: index for index, name in enumerate(names)}
        return cls(shape, Medium(path, shape, len(names)), places)

    def arrival_s(self, sender: str, receiver: str, nbytes: int) -> float:
        """Reserve air for a message; return when it arrives. Nothing to emulate at home: 0."""
        if sender == receiver or not nbytes:
            return 0.0
        return self.medium.reserve(
            self.places[sender], nbytes, time.monotonic(), [self.places[receiver]]
        )

    def reshape(self, text: str) -> None:
        """Change the link for all nodes while they run.

        Raises:
            ConfigError: the text is no link, or of another kind than the one there is.
        """
        shape = LinkShape.parse(text)
        if shape.shared != self.shape.shared:
            raise ConfigError(f"link {text!r}: whether the medium is shared cannot change")
        self.medium.reshape(shape)
