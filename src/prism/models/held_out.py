"""The images in the package that its digits model was never trained on, as they are kept. No torch.

Ink in steps of 0..16 on 8x8 pixels, from the UCI data set "Optical Recognition of Handwritten
Digits" (CC BY 4.0); `scripts/pack_held_out.py` put them there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prism.models.source import DIGITS, packaged

HELD_OUT_FILE = "held_out.npz"
_BRIGHTEST = 16.0  # the data set counts ink in steps of 0..16

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def packed_images() -> tuple[Images, Labels]:
    """Return the ink `(400, 8, 8)` of the images and their digits."""
    with np.load(packaged(DIGITS) / HELD_OUT_FILE) as packed:
        return packed["images"], packed["labels"].astype(np.int64)


def grey(ink: Images) -> Images:
    """Return ink as pixels of 0..255, of any shape."""
    return np.round(ink * (255 / _BRIGHTEST)).astype(np.uint8)
