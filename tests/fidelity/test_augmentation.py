"""Images change a little while a model trains, and only images do."""

import pytest
import torch
from tests.families import BY_NAME

from prism.errors import ConfigError
from prism.fidelity.augmentation import augmentation, light
from prism.models.load import adopt


def test_light_changes_move_an_image_only_a_little():
    dot = torch.full((16, 1, 64, 64), -1.0)
    dot[:, :, 30:34, 30:34] = 1.0
    other = torch.arange(16)
    made = light({"pixel_values": dot, "other": other}, torch.Generator().manual_seed(5))
    moved = made["pixel_values"]
    assert made["other"] is other
    assert moved.shape == dot.shape and moved.min() >= -1 and moved.max() <= 1
    brightest = moved.flatten(1).argmax(1)
    offset = torch.stack([brightest // 64, brightest % 64]) - 31.5
    assert not torch.equal(moved[0], moved[1])
    assert 1 < offset.abs().max() <= 8


def test_the_generator_decides():
    pixels = {"pixel_values": torch.rand(2, 3, 8, 8)}
    same = [light(pixels, torch.Generator().manual_seed(1))["pixel_values"] for _ in range(2)]
    assert torch.equal(*same)


def test_names_are_checked_against_the_model():
    images, texts = (adopt(BY_NAME[name].model()).info for name in ("ViTModel", "BertModel"))
    assert augmentation("none", texts) is None
    assert augmentation("light", images) is light
    with pytest.raises(ConfigError, match="BertModel reads input_ids"):
        augmentation("light", texts)
    with pytest.raises(ConfigError, match="use none or light"):
        augmentation("heavy", images)
