"""Train the digits model of the package so that one checkpoint serves every plan.

`studies.digits_base` trains the plain model, `DIR/base`. That is fine-tuned for plans exactly as
`prism finetune` does with any model, which makes `DIR/tuned`.

The held-out images are looked at once, at the end, for the tables; progress is judged on a small
validation set taken from the training images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from studies.digits_base import BATCH, PHASES, split, train_base

from prism.cli.counting import counted
from prism.cli.finetune_view import shown_progress
from prism.fidelity.accuracy import FILE_NAME, Subject, write_table
from prism.fidelity.augmentation import light
from prism.fidelity.evaluate import evaluate
from prism.fidelity.finetune import finetune
from prism.fidelity.output import BEFORE_NAME
from prism.fidelity.sample_set import Samples
from prism.fidelity.samples import open_samples
from prism.fidelity.training import Settings
from prism.models.load import LoadedModel, load
from prism.models.source import DIGITS
from prism.plan import Plan

EVALUATED = 50
TUNING_RATE = 4e-4
NODES = (2, 3, 4)
LAGS = ("", ":lag1")
TRAINED_MEANS = (4, 10)
MEASURED_MEANS = (4, 10, 20)


def trained_plans() -> tuple[Plan, ...]:
    """Return what the weights are fine-tuned for."""
    return tuple(
        Plan.parse(f"seq:{nodes}:{grouping}{means}{lag}:f16")
        for nodes in NODES
        for grouping in "CL"
        for means in TRAINED_MEANS
        for lag in LAGS
    )


def table_plans() -> tuple[Plan, ...]:
    """Return what the shipped table covers."""
    texts = ["local"]
    for nodes in NODES:
        for lag in LAGS:
            texts += [f"seq:{nodes}:full{lag}{wire}" for wire in ("", ":f16")]
            texts += [f"seq:{nodes}:{way}{n}{lag}" for way in "CL" for n in MEASURED_MEANS]
    return (*map(Plan.parse, texts), *trained_plans())


def samples_of(name: str, images: torch.Tensor, labels: torch.Tensor) -> Samples:
    """Return images of the data set as samples to fine-tune with."""
    return Samples(
        name,
        "images",
        [image.numpy().tobytes() for image in images],
        lambda rows: {"pixel_values": images[list(rows)]},
        labels,
    )


def tune(base: LoadedModel, out: Path, steps: int, seed: int, command: str) -> None:
    """Fine-tune the plain model for plans as `prism finetune` does."""
    images, labels, validation = split(seed)
    with shown_progress() as tell:
        finetune(
            base,
            samples_of("digits, training", images, labels),
            samples_of("digits, validation", *validation),
            out,
            Settings(
                plans=trained_plans(),
                steps=steps,
                batch=BATCH,
                learning_rate=TUNING_RATE,
                seed=seed,
            ),
            transform=light,
            command=command,
            tell=tell,
        )


def write_tables(base: LoadedModel, tuned: LoadedModel, out: Path, command: str) -> None:
    """Measure both models on the held-out images and write the tables beside the tuned one."""
    for loaded, plans, name in (
        (base, (Plan(), *trained_plans()), BEFORE_NAME),
        (tuned, table_plans(), FILE_NAME),
    ):
        held_out = open_samples(DIGITS, loaded)
        partial = out / f"{name}.partial"
        with counted(name, len(held_out)) as advance:
            entries = evaluate(
                loaded, held_out, plans, batch=EVALUATED, resume=partial, advance=advance
            )
        subject = Subject.of(loaded.fingerprint, held_out, None)
        write_table(out / name, subject, entries, command, force=True)
        partial.unlink()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train the digits model, fine-tune it for plans and measure every plan.",
        epilog="Copy config.json, model.safetensors, preprocessor_config.json and accuracy.json "
        "of DIR/tuned to src/prism/data/digits to ship a result. A run that was stopped while it "
        "fine-tuned goes on with --base DIR/base, one that was measuring with --measure-only.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--base", type=Path, metavar="MODEL", help="plain model to start from, instead of training"
    )
    parser.add_argument("--epochs", type=int, default=60, help="of the plain model (default 60)")
    parser.add_argument("--steps", type=int, default=600, help="of fine-tuning (default 600)")
    parser.add_argument(
        "--measure-only", action="store_true", help="DIR/tuned is there; make its tables"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, plans (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    options = parser.parse_args(arguments)
    if options.epochs < len(PHASES):
        parser.error(f"--epochs must be {len(PHASES)} or more, one per phase")
    torch.set_num_threads(options.threads)
    plain, tuned = options.base or options.out / "base", options.out / "tuned"
    if options.base is None and not options.measure_only:
        train_base(plain, options.epochs, options.seed)
    recipe = f"--epochs {options.epochs}" if options.base is None else "--base MODEL"
    command = (
        f"python -m studies.train_digits --out DIR {recipe} --steps {options.steps} "
        f"--seed {options.seed} --threads {options.threads}"
    )
    base = load(str(plain))
    if not options.measure_only:
        tune(base, tuned, options.steps, options.seed, command)
    write_tables(base, load(str(tuned)), tuned, command)


if __name__ == "__main__":
    main()
