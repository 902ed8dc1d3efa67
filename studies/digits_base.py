"""The plain digits model: what `studies.train_digits` fine-tunes for plans.

Two phases. `sparse` trains on one patch of each 2x2: the images are upsampled by eight, so
neighbouring patches say nearly the same and a step costs a quarter. `whole` settles the model on
all 257 tokens. Progress is judged on a small validation set taken from the training images.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification

from prism.demo import digits
from prism.fidelity.augmentation import light
from prism.models.pixels import Normalisation
from prism.models.virtual import virtual
from prism.plan import Plan

BATCH = 32
VALIDATION = 100
PATCH = 4
SAID_EVERY_S = 2.0
Labelled = tuple[torch.Tensor, torch.Tensor]
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": digits.IMAGE_SIZE, "width": digits.IMAGE_SIZE},
    "resample": 2,  # bilinear
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5],
    "image_std": [0.5],
}
NORMALISATION = Normalisation(1 / 255, (0.5,), (0.5,))


@dataclass(frozen=True)
class Phase:
    """A stretch of training: its share of all epochs, its peak learning rate and its cost."""

    name: str
    share: float
    rate: float
    cost: float
    sparse: bool = False


PHASES = (
    Phase("sparse", 0.87, 1.2e-3, cost=0.25, sparse=True),
    Phase("whole", 0.13, 4e-4, cost=1.0),
)


def build_model() -> ViTForImageClassification:
    config = ViTConfig(
        image_size=digits.IMAGE_SIZE,
        patch_size=PATCH,
        num_channels=1,
        hidden_size=96,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=384,
        id2label={i: str(i) for i in range(10)},
        label2id={str(i): i for i in range(10)},
    )
    return ViTForImageClassification(config)


def one_of_each_four(rng: random.Random) -> torch.Tensor:
    """Draw positions: the class token and one patch of each 2x2."""
    side = digits.IMAGE_SIZE // PATCH
    patches = [
        (row + rng.randrange(2)) * side + column + rng.randrange(2)
        for row in range(0, side, 2)
        for column in range(0, side, 2)
    ]
    return torch.tensor([0] + [1 + patch for patch in patches])


@dataclass
class Clock:
    """Says on standard error how far a run is."""

    total: float
    done: float = 0.0

    def __post_init__(self) -> None:
        self.started_s = time.monotonic()
        self.said_s = 0.0

    def advance(self, amount: float, text: str) -> None:
        self.done += amount
        spent_s = time.monotonic() - self.started_s
        if spent_s - self.said_s < SAID_EVERY_S:
            return
        self.said_s = spent_s
        left_s = spent_s / self.done * (self.total - self.done)
        print(f"{text}, {spent_s:.0f} s spent, {left_s:.0f} s left", file=sys.stderr, flush=True)


class Training:
    """The training of the plain model: data and every source of chance, from one seed."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.images, self.labels, (images, labels) = split(seed)
        self.pixels = NORMALISATION.apply(self.images)
        self.validation = NORMALISATION.apply(images), labels
        self.model = build_model()

    def run(self, phase: Phase, epochs: int, clock: Clock) -> None:
        """Train for `epochs`; the learning rate warms up, then falls along a cosine."""
        optimizer = torch.optim.AdamW(self.model.parameters(), weight_decay=0.05)
        batches = math.ceil(len(self.pixels) / BATCH)
        self.model.train()
        for epoch in range(epochs):
            losses = []
            order = torch.randperm(len(self.pixels), generator=self.generator)
            for index, rows in enumerate(order.split(BATCH)):
                done = (epoch * batches + index + 1) / (epochs * batches)
                for group in optimizer.param_groups:
                    group["lr"] = phase.rate * min(done * 10, (1 + math.cos(math.pi * done)) / 2)
                losses.append(self.step(phase, optimizer, rows))
            clock.advance(
                phase.cost, f"{phase.name} {epoch + 1}/{epochs}: loss {np.mean(losses):.3f}"
            )
        self.model.eval()

    def step(self, phase: Phase, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> float:
        """Take one step on some images and return the loss before it."""
        pixels = light({"pixel_values": self.pixels[rows]}, self.generator)["pixel_values"]
        if not phase.sparse:
            return self._descend(optimizer, pixels, self.labels[rows])
        kept = one_of_each_four(self.rng)
        hook = self.model.vit.embeddings.register_forward_hook(lambda _, __, x: x[:, kept])
        try:
            return self._descend(optimizer, pixels, self.labels[rows])
        finally:
            hook.remove()

    def _descend(
        self, optimizer: torch.optim.Optimizer, pixels_BCHW: torch.Tensor, labels_B: torch.Tensor
    ) -> float:
        logits = self.model(pixel_values=pixels_BCHW).logits
        loss = functional.cross_entropy(logits, labels_B, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def validate(self) -> float:
        """Return the accuracy on the validation images."""
        pixels, labels = self.validation
        return (predict(self.model, pixels, Plan()) == labels).float().mean().item()


def split(seed: int) -> tuple[torch.Tensor, torch.Tensor, Labelled]:
    """Return images (uint8) and digits to train on, and those to validate with."""
    images, labels = map(torch.from_numpy, digits.training())
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(images)))
    kept, held = order[VALIDATION:], order[:VALIDATION]
    return images[kept], labels[kept], (images[held], labels[held])


def train_base(out: Path, epochs: int, seed: int) -> None:
    """Train the plain model and write it to `out`."""
    training = Training(seed)
    lengths = [max(1, round(phase.share * epochs)) for phase in PHASES]
    clock = Clock(sum(n * phase.cost for n, phase in zip(lengths, PHASES, strict=True)))
    for phase, length in zip(PHASES, lengths, strict=True):
        training.run(phase, length, clock)
        print(f"validation: {training.validate():.2f}", file=sys.stderr)
    save(training.model, out)


def save(model: PreTrainedModel, directory: Path) -> None:
    model.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n")


def predict(model: PreTrainedModel, pixels_BCHW: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return the digit that `model` sees in each image under `plan`."""
    with torch.inference_mode(), virtual(model, plan):
        return torch.cat([model(pixel_values=x).logits.argmax(-1) for x in pixels_BCHW.split(100)])
