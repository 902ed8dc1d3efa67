"""What compressing images without loss costs on one node."""

from __future__ import annotations

from dataclasses import dataclass

from prism.perfmap.checks import require_number, require_text


@dataclass(frozen=True, slots=True)
class CodingTimes:
    """How long one byte of a photo takes on a node, on one thread.

    Attributes:
        node: its name.
        compress_per_byte_s: to predict and deflate it.
        decompress_per_byte_s: likewise the way back; counted are the bytes of the photo.
    """

    node: str
    compress_per_byte_s: float
    decompress_per_byte_s: float

    def __post_init__(self) -> None:
        require_text("coding node", self.node)
        for name in ("compress_per_byte_s", "decompress_per_byte_s"):
            require_number(f"coding {name} of {self.node}", getattr(self, name))
