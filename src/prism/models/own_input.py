"""The part of a main input that one partition's positions are made of, and the way back.

A part stands in for the whole input with zeros everywhere else: the model's own embedding makes of
it what it would have made of the whole, at the part's positions. Patches of images and frames of a
spectrogram can be cut; see `partition.own_input` for when that is worth it. The blank rest of an
image need not even be embedded (`embedding_only`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.functional import linear

from prism.errors import ClusterError
from prism.models.families import patch
from prism.models.load import ModelInfo
from prism.partition.spans import Span

# Whisper's two convolutions of width 3, the second with stride 2: position n is made of the frames
# from 2n - 2 to 2n + 2.
_FRAMES_BEFORE, _FRAMES_AFTER = 2, 1


def can_be_cut(name: str) -> bool:
    """Return whether a main input of this name consists of parts that belong to positions."""
    return name in ("pixel_values", "input_features")


def cut(info: ModelInfo, whole: torch.Tensor, own: Span) -> torch.Tensor:
    """Return what the positions `own` are made of.

    Args:
        info: the model.
        whole: pixels `(B, C, H, W)` or features `(B, bins, frames)`.
        own: positions, those of a class token or the like included.

    Returns:
        Patches `(B, n, C, p, p)`, or features `(B, bins, n)`; of the dtype of `whole`.
    """
    if whole.dim() == 3:
        return whole[:, :, _frames(own, whole.shape[2])].contiguous()
    patches = _patches(info, own)
    return _grid(info, whole).flatten(1, 2)[:, patches.start : patches.stop].contiguous()


def restore(info: ModelInfo, part: torch.Tensor, own: Span, shape: Sequence[int]) -> torch.Tensor:
    """Return an input of the whole `shape` that is `part` at the positions `own`, else zero.

    Raises:
        ClusterError: it is no part of such an input.
    """
    if tuple(part.shape) != _part_shape(info, own, shape):  # before memory is taken for the whole
        raise ClusterError(
            f"a part of shape {tuple(part.shape)} is not that of the positions {own.start} to "
            f"{own.stop} of an input of shape {tuple(shape)}"
        )
    whole = torch.zeros(tuple(shape), dtype=part.dtype)
    if whole.dim() == 3:
        whole[:, :, _frames(own, whole.shape[2])] = part
        return whole
    grid = _grid(info, whole)
    patches = _patches(info, own)
    columns = grid.shape[2]
    number = torch.arange(patches.start, patches.stop)
    grid[:, number // columns, number % columns] = part
    return whole


@contextmanager
def embedding_only(info: ModelInfo, model: nn.Module, own: Span) -> Iterator[None]:
    """Let a vision model embed the patches of `own` only, as zeros what other patches become.

    Does nothing for other models.

    Args:
        info: the model's description.
        model: the model.
        own: positions.
    """
    convolution = _patch_convolution(model)
    if convolution is None:
        yield
        return
    patches = _patches(info, own)

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        grid = _grid(info, pixels)
        batch, rows, columns = grid.shape[:3]
        flat = grid.flatten(1, 2)[:, patches.start : patches.stop].flatten(2)
        own_BnD = linear(flat, convolution.weight.flatten(1), convolution.bias)
        out = own_BnD.new_zeros(batch, own_BnD.shape[2], rows * columns)
        out[:, :, patches.start : patches.stop] = own_BnD.transpose(1, 2)
        return out.view(batch, -1, rows, columns)

    convolution.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del convolution.forward


def _patch_convolution(model: nn.Module) -> nn.Conv2d | None:
    """Return the convolution that turns each patch of an image into a row, if there is one."""
    found = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return next((each for each in found if each.kernel_size == each.stride), None)


def _grid(info: ModelInfo, pixels: torch.Tensor) -> torch.Tensor:
    """Return a view `(B, rows, columns, C, p, p)` of the patches of images."""
    edge = patch(info.config)
    return pixels.unfold(2, edge, edge).unfold(3, edge, edge).permute(0, 2, 3, 1, 4, 5)


def _patches(info: ModelInfo, own: Span) -> Span:
    """Return the patches of some positions, which are counted from behind the class token."""
    before = info.family.image_tokens
    return Span(max(0, own.start - before), max(0, own.stop - before))


def _part_shape(info: ModelInfo, own: Span, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return the shape of what `cut` makes of an input; None where there is no such input."""
    if len(shape) == 3:
        batch, bins, length = shape
        frames = _frames(own, length)
        return batch, bins, frames.stop - frames.start
    if len(shape) != 4:
        return None
    batch, channels, height, width = shape
    edge = patch(info.config)
    patches = _patches(info, own)
    there = patches.stop <= (height // edge) * (width // edge)
    return (batch, patches.size, channels, edge, edge) if there else None


def _frames(own: Span, frames: int) -> slice:
    start = max(0, 2 * own.start - _FRAMES_BEFORE)
    return slice(start, min(frames, 2 * own.stop + _FRAMES_AFTER))
