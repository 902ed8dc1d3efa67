"""What tests of fine-tuning share: a small classifier, its data, a Ctrl-C at the right moment."""

import torch
from tests.processors import ViTProcessor
from transformers import ViTConfig, ViTForImageClassification

from prism.fidelity.sample_set import Samples
from prism.fidelity.training import Settings
from prism.plan import Plan

PLANS = tuple(map(Plan.parse, ("seq:2:L2:lag1:f16", "seq:2:C2:f16", "seq:3:C1:f16")))
FEW = Settings(plans=PLANS, steps=6, batch=4, learning_rate=1e-3)


def pixels(count, seed=0):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def samples_of(inputs, labels=None, name="made up"):
    count = len(next(iter(inputs.values())))
    return Samples(
        name,
        "arrays",
        [f"{name} {row}".encode() for row in range(count)],
        lambda rows: {key: value[list(rows)] for key, value in inputs.items()},
        labels,
    )


def images(count=24, seed=0, labels=None):
    return samples_of({"pixel_values": pixels(count, seed)}, labels, f"images {seed}")


def save_small_model(folder):
    """Write a small classifier and its image processor."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=16,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=4,
        initializer_range=0.3,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)


class Stop:
    """Presses Ctrl-C when a phase has come so far."""

    def __init__(self, phase, done):
        self.phase, self.done, self.steps = phase, done, []

    def __call__(self, progress):
        if progress.step is not None:
            self.steps.append(progress.step.number)
        if progress.phase == self.phase and progress.done >= self.done:
            raise KeyboardInterrupt


def vars_of(settings):
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}
