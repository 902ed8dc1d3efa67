"""Whether images are compressed, without loss, on their way to a helper.

They are when that is faster at the link as it is: what the link is spared must make up for both
ends' work. How much an image shrinks is told by a sample of the image itself. Predictions of plans
count raw bytes: what images will come is not known to them, and what is spared comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass

from prism.record import LinkState

# Link, speeds and sample are forecasts, and both ends may have other work just then.
_MARGIN = 1.5
# Of one input; less is lost again in the bookkeeping.
_LEAST_GAIN_S = 0.001


@dataclass(frozen=True, slots=True)
class ImageCoding:
    """What decides on the way to one helper.

    Attributes:
        link: to it, as it is now.
        compress_per_byte_s: time that a byte of an image takes on the first node.
        decompress_per_byte_s: likewise on the helper, back.
    """

    link: LinkState
    compress_per_byte_s: float
    decompress_per_byte_s: float

    def pays(self, nbytes: int, ratio: float) -> bool:
        """Return whether to compress an image.

        Args:
            nbytes: of the image as it is.
            ratio: the part of them that is left, 0..1.
        """
        spared_s = 8.0 * nbytes * (1.0 - ratio) / self.link.bandwidth_bps
        worked_s = nbytes * (self.compress_per_byte_s + self.decompress_per_byte_s)
        return spared_s > _MARGIN * worked_s + _LEAST_GAIN_S
