"""Pixels as received to the model's input: uint8 travels, normalisation happens on the node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Per-channel affine map of pixels: `(pixel * scale - mean) / std`.

    Attributes:
        scale: factor on the raw 0..255 value.
        mean, std: per channel, after scaling.
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def symmetric(cls) -> Normalisation:
        """Return the map of 0..255 to -1..1, the default of ViT's image processor."""
        return cls(1 / 255, (0.5,), (0.5,))

    @classmethod
    def of_directory(cls, directory: str) -> Normalisation | None:
        """Read `preprocessor_config.json` beside a model; None when there is none to read."""
        try:
            if Path(directory).is_dir():
                text = (Path(directory) / "preprocessor_config.json").read_text()
                settings = json.loads(text)
            else:
                # Not from the top of the package: see `models.processing`.
                from transformers.models.auto.image_processing_auto import AutoImageProcessor

                processor: Any = AutoImageProcessor
                settings = processor.from_pretrained(directory).to_dict()
        except (OSError, ValueError):
            return None
        return cls.of_settings(settings)

    @classmethod
    def of_settings(cls, settings: dict[str, Any]) -> Normalisation | None:
        """Read an image processor's settings; None when they are of another kind."""
        if "image_mean" not in settings and "do_rescale" not in settings:
            return None
        scale = float(settings.get("rescale_factor", 1 / 255))
        normalises = settings.get("do_normalize", True) and settings.get("image_mean") is not None
        return cls(
            scale=scale if settings.get("do_rescale", True) else 1.0,
            mean=tuple(settings["image_mean"]) if normalises else (0.0,),
            std=tuple(settings["image_std"]) if normalises else (1.0,),
        )

    def apply(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return float32 pixels, normalised."""
        device = pixels_BCHW.device
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for values in (self.mean, self.std)
        )
        return (pixels_BCHW.float() * self.scale - mean) / std
