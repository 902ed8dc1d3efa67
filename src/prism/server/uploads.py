"""Images as clients send them: judged by their header, and only then decoded.

A few bytes can ask for gigabytes of pixels, whole or once a processor has resized them. So what an
image claims to be is compared with limits before any of its pixels is made.
"""

from __future__ import annotations

import base64
import binascii
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from prism.server.errors import BadRequest, TooLarge

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_MIB = 1 << 20
MOST_BYTES = 20 * _MIB
MOST_PIXELS = 40_000_000
# A processor that brings the shorter side to 256 pixels makes the longer one as many times longer.
MOST_TIMES_LONGER = 50
_EXPECTED = "send a PNG, JPEG, WebP, BMP or GIF image"


def decode_base64(text: str) -> bytes:
    """Return the bytes of an image that came as base64 text; line breaks in it do not count.

    Raises:
        BadRequest: it is no base64.
        TooLarge: it holds more bytes than an image may have.
    """
    if len(text) > 2 * MOST_BYTES:
        raise TooLarge(f"image is longer than {MOST_BYTES // _MIB} MiB; send a smaller one")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(
            "image must be the file's bytes as base64, without a data: prefix; an address is "
            "never opened"
        ) from None


def read_image(content: bytes) -> Image.Image:
    """Return the image that a file holds, turned as its camera said; the first of an animation.

    Args:
        content: the whole file.

    Raises:
        BadRequest: it is no image, of another format, broken, or much longer than wide.
        TooLarge: it has more bytes or pixels than an image may have; none was decoded.
    """
    if len(content) > MOST_BYTES:
        raise TooLarge(
            f"the image has {len(content) / _MIB:.1f} MiB; at most {MOST_BYTES // _MIB} MiB are "
            f"read, send a smaller one"
        )
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(image)
            image.load()
            return _eight_bits(ImageOps.exif_transpose(image))
    except (BadRequest, TooLarge):
        raise
    except UnidentifiedImageError:
        raise BadRequest(f"what was sent is not an image that can be read; {_EXPECTED}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLarge(_too_many_pixels("more than 89 million")) from None
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        raise BadRequest(f"the image is broken ({_reason(error)}); {_EXPECTED}") from None


def _check_size(image: Image.Image) -> None:
    shorter, longer = sorted(image.size)
    if shorter * longer > MOST_PIXELS:
        raise TooLarge(_too_many_pixels(f"{image.width} x {image.height}"))
    if longer > MOST_TIMES_LONGER * shorter:
        raise BadRequest(
            f"the image has {image.width} x {image.height} pixels; its longer side may be "
            f"{MOST_TIMES_LONGER} times the shorter one at most, crop it"
        )


def _too_many_pixels(claimed: str) -> str:
    most = MOST_PIXELS // 1_000_000
    return f"the image claims {claimed} pixels; at most {most} million are decoded, make it smaller"


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit grey to 8 bits; Pillow would cut it off at 255."""
    if not image.mode.startswith("I"):
        return image
    grey_HW = np.asarray(image).astype(np.float64) / 257
    return Image.fromarray(grey_HW.round().clip(0, 255).astype(np.uint8))


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
