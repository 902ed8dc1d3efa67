"""Which tensors a model takes and gives, as the Open Inference Protocol describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: of the tensor.
        datatypes: that it may have, in the protocol's words; the first is the usual one.
        shape: sizes; -1 where any will do.
    """

    name: str
    datatypes: tuple[str, ...]
    shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what the protocol's metadata say of it."""
        return {"name": self.name, "datatype": self.datatypes[0], "shape": list(self.shape)}
