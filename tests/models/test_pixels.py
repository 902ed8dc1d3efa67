"""Normalisation on the node equals the image processor of transformers, to rounding."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.processors import CLIPProcessor, ViTProcessor

from prism.models.pixels import Normalisation


def images(seed, batch=2):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (batch, 3, 16, 16), dtype=np.uint8)


def processed(processor, pixels):
    # Releases that have no crop in a processor warn when they are told to leave it out.
    crop = {"do_center_crop": False} if getattr(processor, "do_center_crop", None) else {}
    made = processor(
        list(pixels),
        do_resize=False,
        **crop,
        input_data_format="channels_first",
        return_tensors="pt",
    )
    return made["pixel_values"]


@pytest.mark.parametrize("processor_class", [ViTProcessor, CLIPProcessor])
@given(seed=st.integers(0, 2**32 - 1))
def test_equals_the_image_processor(processor_class, seed):
    processor = processor_class()
    normalisation = Normalisation.of_settings(processor.to_dict())
    pixels = images(seed)
    ours = normalisation.apply(torch.from_numpy(pixels))
    torch.testing.assert_close(ours, processed(processor, pixels), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_rescale": False},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    ],
)
def test_a_directory_says_what_its_processor_does(settings, tmp_path):
    processor = ViTProcessor(**settings)
    processor.save_pretrained(tmp_path)
    normalisation = Normalisation.of_directory(str(tmp_path))
    pixels = images(0)
    ours = normalisation.apply(torch.from_numpy(pixels))
    torch.testing.assert_close(ours, processed(processor, pixels).float(), atol=1e-4, rtol=1e-5)


def test_the_default_of_random_models_is_that_of_vit():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert Normalisation.symmetric().apply(pixels).unique().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("text", [None, "{", json.dumps({"feature_size": 80})])
def test_without_an_image_processor_there_is_none(text, tmp_path):
    if text is not None:
        (tmp_path / "preprocessor_config.json").write_text(text)
    assert Normalisation.of_directory(str(tmp_path)) is None
