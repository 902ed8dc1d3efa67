"""The small real model in the package and the images it was never trained on.

A Vision Transformer for scikit-learn's handwritten digits (from the UCI data set "Optical
Recognition of Handwritten Digits", CC BY 4.0), so that a demonstration has something true to say
about accuracy without a download. This module owns which images are held out; those are in the
package too (`scripts/pack_held_out.py` put them there), the others come with scikit-learn.
`studies/train_digits.py` made the model and takes its split from here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prism.errors import ConfigError
from prism.models.held_out import Images, Labels, grey, packed_images
from prism.models.source import DIGITS, packaged

IMAGE_SIZE = 64
HELD_OUT_PER_DIGIT = 40
_SPLIT_SEED = 20260525


def model_path() -> Path:
    """Return the directory of the model that comes with the package."""
    return packaged(DIGITS)


def held_out() -> tuple[Images, Labels]:
    """Return the images no training saw, `(400, 1, 64, 64)` of 0..255, and their digits."""
    ink, labels = packed_images()
    return _enlarged(ink), labels


def training() -> tuple[Images, Labels]:
    """Return every image that is not held out, in the form of `held_out`.

    Raises:
        ConfigError: scikit-learn, which brings the images, is not installed.
    """
    ink, labels = dataset()
    rest = ~held_out_rows(labels)
    return _enlarged(ink[rest]), labels[rest]


def dataset() -> tuple[Images, Labels]:
    """Return the whole data set as it is, ink of 0..16 in `(1797, 8, 8)`, and its digits.

    Raises:
        ConfigError: scikit-learn, which brings the images, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigError(
            "the digits to train on come with scikit-learn, which is not installed; "
            "run `pip install scikit-learn`"
        ) from None
    bunch = load_digits()
    return bunch.images.astype(np.uint8), bunch.target.astype(np.int64)


def held_out_rows(labels: Labels) -> NDArray[np.bool_]:
    """Draw the same number of each digit; RandomState's stream is frozen across numpy releases."""
    random = np.random.RandomState(_SPLIT_SEED)
    chosen = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        rows = random.permutation(np.flatnonzero(labels == digit))
        chosen[rows[:HELD_OUT_PER_DIGIT]] = True
    return chosen


def _enlarged(ink: Images) -> Images:
    return np.stack([_enlarge(image) for image in ink])[:, None]


def _enlarge(ink: Images) -> Images:
    resized = Image.fromarray(grey(ink)).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    return np.asarray(resized)
