"""What each node is sent of a request: its inputs as they travel, all at once or in two parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prism.control import codec, messages
from prism.engine.strategy import Placement, Strategy
from prism.models.inputs import main_input
from prism.models.load import ModelInfo
from prism.planner import ImageCoding

Codings = Mapping[str, ImageCoding]


@dataclass(frozen=True, slots=True)
class Packed:
    """Inputs as they travel; see `codec.pack`."""

    description: Any
    frames: list[memoryview]

    @classmethod
    def of(cls, inputs: Mapping[str, Any], coding: ImageCoding | None) -> Packed:
        """Pack inputs; images are compressed where `coding` says so."""
        return cls(*codec.pack(inputs, None if coding is None else coding.pays))


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a node is sent: all at once, or first rows and then the rest, so many rows."""

    first: Packed
    rest: Packed | None = None
    rest_rows: int = 0

    @property
    def frames(self) -> list[memoryview]:
        """All tensors that cross the link."""
        return [*self.first.frames, *(self.rest.frames if self.rest else ())]

    @property
    def nbytes(self) -> int:
        """How many bytes they have."""
        return messages.size_of(self.frames)


def parcels_of(
    info: ModelInfo, strategy: Strategy, placement: Placement, home: str, codings: Codings
) -> dict[str, Parcel]:
    """Return what each node is sent; the one at home, whose input crosses no link, is last.

    Args:
        info: the model.
        strategy: of the plan.
        placement: what it gives each node.
        home: name of the node on the coordinator's own device.
        codings: by helper, what decides whether its images are compressed; others' are not.
    """
    whole: dict[tuple[int, ImageCoding | None], Packed] = {}
    parcels = {}
    for name in sorted(placement.inputs, key=lambda name: name == home):
        part = placement.inputs[name]
        coding = None if name == home else codings.get(name)
        cut = None if name == home else strategy.sent_first(info, part)
        if cut is None:
            key = id(part), coding
            if key not in whole:
                whole[key] = Packed.of(part, coding)
            parcels[name] = Parcel(whole[key])
        else:
            # Both before anything is sent: the link is to be timed, not the work on the rest.
            first, rest = (Packed.of(inputs, coding) for inputs in cut)
            parcels[name] = Parcel(first, rest, len(cut[1][main_input(info)]))
    return parcels
