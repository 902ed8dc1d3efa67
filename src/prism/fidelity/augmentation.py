"""Small changes of images while a model trains, so that few of them go further."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from prism.errors import ConfigError
from prism.models.inputs import main_input
from prism.models.load import ModelInfo

Inputs = dict[str, torch.Tensor]
# From prepared inputs and the chance of one step to what the step trains on.
Transform = Callable[[Inputs, torch.Generator], Inputs]

_TURN = math.radians(10)
_SCALE = 1 / 10
_SHIFT = 1 / 8  # of the half side, which is the unit of the grid


def light(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Turn (10 degrees), scale (10 %) and shift (1/16 of the side) each image a little.

    Args:
        inputs: prepared ones, `pixel_values` `(B, C, H, W)` of floats; others stay as they are.
        generator: the source of chance.
    """
    pixels_BCHW = inputs["pixel_values"]
    drawn = torch.rand(4, len(pixels_BCHW), generator=generator) * 2 - 1
    angle, scale = drawn[0] * _TURN, 1 + drawn[1] * _SCALE
    shift_x, shift_y = drawn[2:] * _SHIFT
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)]
    matrix = torch.stack(rows, 1).to(pixels_BCHW)
    grid = functional.affine_grid(matrix, list(pixels_BCHW.shape), align_corners=False)
    moved = functional.grid_sample(pixels_BCHW, grid, padding_mode="border", align_corners=False)
    return {**inputs, "pixel_values": moved}


def augmentation(name: str, info: ModelInfo) -> Transform | None:
    """Return the changes that go by a name; None for none.

    Raises:
        ConfigError: there is no such name, or the model reads no images.
    """
    if name not in _BY_NAME:
        raise ConfigError(f"--augment {name!r} is not known; use {' or '.join(_BY_NAME)}")
    transform = _BY_NAME[name]
    if transform is not None and main_input(info) != "pixel_values":
        raise ConfigError(
            f"--augment {name} changes images, and {info.architecture.__name__} reads "
            f"{main_input(info)}; leave it out"
        )
    return transform


_BY_NAME: Mapping[str, Transform | None] = {"none": None, "light": light}
