"""Inputs made up for timing: the right shapes and types, values that mean nothing."""

from __future__ import annotations

import torch

from prism.models.families import image_size
from prism.models.inputs import main_input
from prism.models.load import ModelInfo

_SEED = 0


def synthetic_inputs(info: ModelInfo, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Return inputs of `batch` samples; the same for the same arguments.

    Args:
        info: the model.
        batch: samples.
        length: tokens per sample, for text; images and audio have the length of their model.
    """
    generator = torch.Generator().manual_seed(_SEED)
    config = info.config
    name = main_input(info)
    if name == "pixel_values":
        shape: tuple[int, ...] = (batch, config.num_channels, *image_size(config))
        if info.normalisation is None:
            return {name: torch.rand(shape, generator=generator)}
        return {name: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)}
    if name == "input_features":
        shape = (batch, config.num_mel_bins, 2 * config.max_source_positions)
        return {name: torch.randn(shape, generator=generator)}
    return {name: torch.randint(0, config.vocab_size, (batch, length), generator=generator)}


def lengths_of(info: ModelInfo) -> tuple[int, ...]:
    """Return the lengths worth measuring: the only one there is, or a short and a long text."""
    longest = info.shape.max_length
    if main_input(info) != "input_ids":
        return (longest,)
    return tuple(sorted({min(32, longest), min(128, longest), min(512, longest)}))
