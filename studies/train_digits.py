"""Train the digits model of the package so that one checkpoint serves every plan.

Three phases. `sparse` trains the plain model on one patch of each 2x2: the images are upsampled by
eight, so neighbouring patches say nearly the same and a step costs a quarter. `whole` settles it on
all 257 tokens. `plans` gives every step a random plan (local, or 2 to 4 partitions with some number
of means, lagged or not), so that the weights learn to read means. The weights as they were before
`plans` are measured too: they show what the last phase is for.

The held-out images are looked at once, at the end, for the table; progress is judged on a small
validation set taken from the training images.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification

from prism.demo import digits
from prism.fidelity.accuracy import wilson_interval
from prism.models.load import load
from prism.models.pixels import Normalisation
from prism.models.virtual import virtual
from prism.plan import Plan

BATCH = 32
VALIDATION = 100
PATCH = 4
SEGMENTS = (1, 2, 4, 8, 10, 16, 32)
NODES = (2, 3, 4)
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
    """A stretch of training: its share of all epochs and its peak learning rate."""

    name: str
    share: float
    rate: float
    sparse: bool = False
    plans: bool = False


PHASES = (
    Phase("sparse", 0.65, 1.2e-3, sparse=True),
    Phase("whole", 0.10, 4e-4),
    Phase("plans", 0.25, 7e-4, plans=True),
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


def any_plan(rng: random.Random) -> Plan:
    """Draw the plan of one training step."""
    if rng.random() < 0.2:
        return Plan()
    nodes = rng.choice(NODES)
    shares = "/".join(str(rng.randint(1, 3)) for _ in range(nodes))
    text = f"seq:{nodes}:L{rng.choice(SEGMENTS)}" + rng.choice(("", ":lag1"))
    return Plan.parse(text + (f":shares={shares}" if rng.random() < 0.3 else ""))


def augment(pixels_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn (10 degrees), scale (10 %) and shift (1/16 of the side) each image a little."""
    drawn = torch.rand(4, len(pixels_BCHW), generator=generator) * 2 - 1
    angle, scale, shift_x, shift_y = drawn[0] * math.radians(10), 1 + drawn[1] / 10, *drawn[2:] / 8
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), pixels_BCHW.shape, align_corners=False)
    return functional.grid_sample(pixels_BCHW, grid, padding_mode="border", align_corners=False)


def one_of_each_four(rng: random.Random) -> torch.Tensor:
    """Draw positions: the class token and one patch of each 2x2."""
    side = digits.IMAGE_SIZE // PATCH
    patches = [
        (row + rng.randrange(2)) * side + column + rng.randrange(2)
        for row in range(0, side, 2)
        for column in range(0, side, 2)
    ]
    return torch.tensor([0] + [1 + patch for patch in patches])


def train_step(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    pixels_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    plan: Plan,
) -> float:
    """Take one step under `plan` and return the loss before it."""
    with virtual(model, plan):
        logits = model(pixel_values=pixels_BCHW).logits
    loss = functional.cross_entropy(logits, labels_B, label_smoothing=0.05)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def predict(model: PreTrainedModel, pixels_BCHW: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return the digit that `model` sees in each image under `plan`."""
    with torch.inference_mode(), virtual(model, plan):
        return torch.cat([model(pixel_values=x).logits.argmax(-1) for x in pixels_BCHW.split(100)])


def table_plans() -> list[Plan]:
    """Return what the shipped table covers."""
    texts = ["local"]
    for nodes in NODES:
        texts += [f"seq:{nodes}:full{option}" for option in ("", ":f16", ":lag1", ":lag1:f16")]
        for segments in SEGMENTS:
            wires = ("", ":f16") if segments in (4, 10) else ("",)
            texts += [
                f"seq:{nodes}:L{segments}{lag}{wire}" for lag in ("", ":lag1") for wire in wires
            ]
    return [Plan.parse(text) for text in texts]


@dataclass
class Progress:
    """Says on standard error how far a run is."""

    total: float
    done: float = 0.0

    def __post_init__(self) -> None:
        self.started_s = time.monotonic()

    def advance(self, amount: float, text: str) -> None:
        self.done += amount
        spent_s = time.monotonic() - self.started_s
        left_s = spent_s / self.done * (self.total - self.done)
        print(f"{text}, {spent_s:.0f} s spent, {left_s:.0f} s left", file=sys.stderr, flush=True)


class Training:
    """One run over all phases: model, data and every source of chance, from one seed."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        images, labels = digits.training()
        order = torch.from_numpy(np.random.RandomState(seed).permutation(len(images)))
        pixels = NORMALISATION.apply(torch.from_numpy(images))[order]
        labels_N = torch.from_numpy(labels)[order]
        self.pixels, self.labels = pixels[VALIDATION:], labels_N[VALIDATION:]
        self.validation = pixels[:VALIDATION], labels_N[:VALIDATION]
        self.model = build_model()

    def run(self, phase: Phase, epochs: int, tell: Callable[[str], None]) -> None:
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
                losses.append(self._step(phase, optimizer, rows))
            tell(f"{phase.name} {epoch + 1}/{epochs}: loss {np.mean(losses):.3f}")
        self.model.eval()

    def _step(self, phase: Phase, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> float:
        pixels = augment(self.pixels[rows], self.generator)
        plan = any_plan(self.rng) if phase.plans else Plan()
        if not phase.sparse:
            return train_step(self.model, optimizer, pixels, self.labels[rows], plan)
        kept = one_of_each_four(self.rng)
        hook = self.model.vit.embeddings.register_forward_hook(lambda _, __, x: x[:, kept])
        try:
            return train_step(self.model, optimizer, pixels, self.labels[rows], plan)
        finally:
            hook.remove()

    def validate(self, texts: Sequence[str]) -> str:
        """Return the accuracy of some plans on the validation images, as text."""
        pixels, labels = self.validation
        hits = {
            text: (predict(self.model, pixels, Plan.parse(text)) == labels).float().mean().item()
            for text in texts
        }
        return "validation: " + ", ".join(f"{text} {hit:.2f}" for text, hit in hits.items())


def train(out: Path, epochs: int, seed: int) -> None:
    """Train and write the model to `out`, and the one before `plans` to `out`/before."""
    training = Training(seed)
    lengths = [max(1, round(phase.share * epochs)) for phase in PHASES]
    cost = [0.25 if phase.sparse else 1.0 for phase in PHASES]
    progress = Progress(sum(n * each for n, each in zip(lengths, cost, strict=True)))
    for phase, length, each in zip(PHASES, lengths, cost, strict=True):
        if phase.plans:
            save(training.model, out / "before")
        training.run(phase, length, lambda text, each=each: progress.advance(each, text))
        print(training.validate(("local", "seq:2:L4", "seq:4:L4:lag1")), file=sys.stderr)
    save(training.model, out)


def save(model: PreTrainedModel, directory: Path) -> None:
    model.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n")


def measure(model: PreTrainedModel, reference: PreTrainedModel | None = None) -> dict[str, Any]:
    """Return correct answers, accuracy and agreement of every plan on the held-out images."""
    images, labels = digits.held_out()
    pixels, truth = NORMALISATION.apply(torch.from_numpy(images)), torch.from_numpy(labels)
    plans = table_plans()
    progress = Progress(len(plans))
    local = predict(model, pixels, Plan())
    rows: dict[str, Any] = {}
    for plan in plans:
        seen = predict(model, pixels, plan)
        rows[str(plan)] = row = accuracy_row(seen, truth, local)
        if reference is not None and plan.wire == "float32":
            hits = (predict(reference, pixels, plan) == truth).sum().item()
            row["accuracy_before"] = round(hits / len(truth), 4)
        progress.advance(1, f"{plan}: {row}")
    return rows


def accuracy_row(seen: torch.Tensor, truth: torch.Tensor, local: torch.Tensor) -> dict[str, Any]:
    """Return one plan's line of the table from its answers, the truth, and local's answers."""
    correct, count = int((seen == truth).sum()), len(truth)
    low, high = wilson_interval(correct, count)
    return {
        "correct": correct,
        "count": count,
        "accuracy": round(correct / count, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "drop": round((int((local == truth).sum()) - correct) / count, 4),
        "agreement": round((seen == local).float().mean().item(), 4),
    }


def write_table(out: Path, command: str) -> None:
    """Measure the model in `out` and write `out`/accuracy.json."""
    torch.manual_seed(0)
    loaded = load(str(out))
    before = load(str(out / "before")).model if (out / "before").is_dir() else None
    header = {
        "format": "prism accuracy table",
        "version": 1,
        "dataset": "scikit-learn load_digits",
        "split": digits.SPLIT,
        "image_size": digits.IMAGE_SIZE,
        "tokens": (digits.IMAGE_SIZE // PATCH) ** 2 + 1,
        "model_hash": loaded.fingerprint,
        "dtype": "float32",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": command,
        "software": {name: version(name) for name in ("torch", "transformers", "scikit-learn")},
        "interval": "95 % Wilson, low..high",
        "accuracy_before": "the weights before training with plans",
    }
    rows = measure(loaded.model, before)
    (out / "accuracy.json").write_text(format_table(header, rows))


def format_table(header: dict[str, Any], rows: dict[str, Any]) -> str:
    """Return JSON with a line per header field and a line per plan."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in header.items()]
    plans = ",\n".join(f"    {json.dumps(key)}: {json.dumps(row)}" for key, row in rows.items())
    return "\n".join(["{", *lines, '  "plans": {', plans, "  }", "}"]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train the digits model with random plans and measure every plan.",
        epilog="Copy config.json, model.safetensors, preprocessor_config.json and accuracy.json "
        "to src/prism/data/digits to ship a result.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--epochs", type=int, default=80, help="over all phases (default 80)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, plans (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument(
        "--evaluate-only", action="store_true", help="measure the model that DIR already has"
    )
    options = parser.parse_args(arguments)
    if options.epochs < len(PHASES):
        parser.error(f"--epochs must be {len(PHASES)} or more, one per phase")
    torch.set_num_threads(options.threads)
    if not options.evaluate_only:
        train(options.out, options.epochs, options.seed)
    recipe = "--evaluate-only" if options.evaluate_only else f"--epochs {options.epochs}"
    settings = f"{recipe} --seed {options.seed} --threads {options.threads}"
    write_table(options.out, f"python studies/train_digits.py --out DIR {settings}")


if __name__ == "__main__":
    main()
