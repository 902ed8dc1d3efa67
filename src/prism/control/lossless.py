"""Images in fewer bytes, exactly: what is left of them after prediction, deflated.

Every pixel is predicted from its neighbours along the width, the height and the channels, all in
one go: differences along each of the three axes, modulo 256. What is left of a photo are small
numbers without any order, for which deflate's Huffman codes alone give fewer bytes than its search
for repetitions, twice as fast. Where a drawing or a scan does repeat itself, a sample shows it.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from prism.errors import ClusterError

# Asked with an image's bytes and the part of them that would be left, 0..1: is that worth it?
Pays = Callable[[int, float], bool]

_AXES = (-1, -2, -3)
_LEVEL = 1
_MOST_MEMORY = 9
_RAW_STREAM = -15  # no header and no checksum: the control plane guards its bytes already
_STRATEGIES = (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY)
# Deflate cannot do better than this, so that whatever claims more is no honest frame.
_MOST_FOLD = 1032
# A prime number of pieces, so that they do not all fall into the same channel.
_PIECES, _PIECE_BYTES = 31, 256
_TIMED_SHAPE, _TIMED_RUNS = (3, 224, 224), 5


def compress(image: torch.Tensor, pays: Pays) -> bytes | None:
    """Return an image in fewer bytes; None where that does not pay, or cannot be done.

    A small sample tells beforehand what will be left of it.

    Args:
        image: uint8, `(..., channels, height, width)`, on the CPU.
        pays: decides.
    """
    size = image.numel()
    # Sampling costs little, and nothing where even the best result would not be worth it.
    if not size or not pays(size, 0.0):
        return None
    flat = _differences(image).reshape(-1)
    sample = _sample(flat)
    left, strategy = min((len(_deflated(sample, each)), each) for each in _STRATEGIES)
    if not pays(size, min(1.0, left / sample.numel())):
        return None
    compressed = _deflated(flat, strategy)
    return compressed if len(compressed) < size else None


def decompress(frame: Any, shape: Sequence[int]) -> torch.Tensor:
    """Return the image of this shape that `compress` made a frame of.

    Raises:
        ClusterError: the frame is not that of such an image.
    """
    size, given = math.prod(shape), memoryview(frame).nbytes
    if len(shape) < len(_AXES) or min(shape) < 1 or size > _MOST_FOLD * given:
        raise ClusterError(f"{given} bytes are no compressed image of shape {tuple(shape)}")
    stream = zlib.decompressobj(_RAW_STREAM)
    try:
        values = stream.decompress(frame, size + 1)
    except zlib.error as error:
        raise ClusterError(f"a compressed image cannot be read ({error})") from error
    if len(values) != size or not stream.eof or stream.unused_data:
        raise ClusterError(
            f"a compressed image of {given} bytes is broken: its shape {tuple(shape)} needs "
            f"{size} values"
        )
    image = torch.frombuffer(bytearray(values), dtype=torch.uint8).reshape(tuple(shape))
    for axis in reversed(_AXES):
        image.cumsum_(axis)
    return image


def times_per_byte_s() -> tuple[float, float]:
    """Return the seconds that a byte of a photo takes here: to compress it, and to decompress."""
    image = _like_a_photo()
    compress_s, decompress_s = math.inf, math.inf
    for _ in range(_TIMED_RUNS):
        started_s = time.perf_counter()
        compressed = compress(image, lambda nbytes, ratio: True)
        compressed_s = time.perf_counter()
        assert compressed is not None
        decompress(compressed, image.shape)
        ended_s = time.perf_counter()
        compress_s = min(compress_s, compressed_s - started_s)
        decompress_s = min(decompress_s, ended_s - compressed_s)
    return compress_s / image.numel(), decompress_s / image.numel()


def _differences(image: torch.Tensor) -> torch.Tensor:
    """Return every value less its neighbour before it, along one axis after the other."""
    for axis in _AXES:
        left = image.clone(memory_format=torch.contiguous_format)
        others = image.shape[axis] - 1
        left.narrow(axis, 1, others).sub_(image.narrow(axis, 0, others))
        image = left
    return image


def _sample(flat: torch.Tensor) -> torch.Tensor:
    """Return some values from everywhere, or all where they are few."""
    if len(flat) <= _PIECES * _PIECE_BYTES:
        return flat
    parts = flat[: len(flat) // _PIECES * _PIECES].view(_PIECES, -1)
    begin = (parts.shape[1] - _PIECE_BYTES) // 2
    return parts[:, begin : begin + _PIECE_BYTES].reshape(-1)


def _deflated(flat: torch.Tensor, strategy: int) -> bytes:
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_STREAM, _MOST_MEMORY, strategy)
    return stream.compress(flat.numpy().data) + stream.flush()


def _like_a_photo() -> torch.Tensor:
    """Return a smooth image with as much noise as leaves about half of its bytes."""
    noise = torch.randn(_TIMED_SHAPE, generator=torch.Generator().manual_seed(0))
    slope = torch.linspace(0, 100, _TIMED_SHAPE[-1])
    return (80 + slope + slope[:, None] / 2 + 1.2 * noise).to(torch.uint8)
