"""`prism finetune`: one checkpoint that serves every plan, from a model and data."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prism.cli import output
from prism.cli.arguments import MODEL_HELP, NO_LABELS_HELP, check_at_least, read_plans
from prism.cli.durations import read_seconds
from prism.cli.finetune_view import print_outcome, shown_progress, summary
from prism.errors import ConfigError
from prism.models.source import DIGITS

if TYPE_CHECKING:
    from prism.fidelity.finetune import Outcome
    from prism.fidelity.training import Settings
    from prism.models.load import LoadedModel
    from prism.plan import Plan

_FLOAT32 = "float32"
_BUDGET = "20m"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog="Example: prism finetune path/to/model texts.jsonl --out tuned --budget 20m"
    )(finetune)


@dataclass(frozen=True, slots=True)
class _Data:
    """What is trained on and what is measured on, as given."""

    train: str
    held_out: str | None
    limit: int | None
    labels: bool


def finetune(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of images (sub-folders = labels) or texts, .csv, .tsv, .jsonl, .txt or "
            ".npz; labels are optional."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The directory to make of the new model.")],
    plans: Annotated[
        str | None,
        typer.Option(
            help="Plans to train for, such as seq:2:C10:f16,seq:4:C10:lag1:f16; default: means of "
            "both groupings on 2 to 4 nodes, for a tenth and a fifth of the positions, with and "
            "without lag."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of a budget.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Time to train, such as 90s, 20m; default 20m; measuring comes on top."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Samples per step.")] = 8,
    length: Annotated[
        int | None, typer.Option(help="Tokens per text; longer ones are cut.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="So many samples of DATA, at random.")] = None,
    eval_data: Annotated[
        str | None,
        typer.Option(
            help="What to measure on; default: a tenth of DATA, 200 samples at most, which never "
            "trains."
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Its peak; default 1e-4 up to 10 million parameters, 5e-5 up to 150, 3e-5 above."
        ),
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help=NO_LABELS_HELP)] = False,
    labels_weight: Annotated[
        float, typer.Option(help="Of the labels, beside the original's answers.")
    ] = 0.5,
    augment: Annotated[
        str, typer.Option(help="none, or light: images turned, scaled and shifted a little.")
    ] = "none",
    seed: Annotated[int, typer.Option(help="Of order, plans and augmentation.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Threads of torch.")] = None,
    device: Annotated[str, typer.Option(help="Device of torch, such as cuda.")] = "cpu",
    checkpoint_every: Annotated[str, typer.Option(help="Time between checkpoints.")] = "60s",
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard logs.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is in --out; start anew if need be.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fine-tune MODEL so that one checkpoint serves every plan, from its own answers to DATA."""
    check_at_least(1, {"--steps": steps, "--batch": batch, "--limit": limit, "--threads": threads})
    check_at_least(2, {"--length": length})
    _check_data(data)
    if steps is not None and budget is not None:
        raise ConfigError("--steps and --budget both say how long to train; give one of them")
    budget_s = read_seconds("--budget", budget or _BUDGET)
    every_s = read_seconds("--checkpoint-every", checkpoint_every)
    chosen = read_plans(plans) or ()

    from prism.fidelity.output import check_out
    from prism.fidelity.training import Settings
    from prism.models.source import files_of

    check_out(out, files_of(model), force)
    settings = Settings(
        plans=chosen,
        steps=steps,
        budget_s=budget_s,
        batch=batch,
        learning_rate=learning_rate,
        labels_weight=labels_weight,
        length=length,
        seed=seed,
        checkpoint_every_s=every_s,
        tensorboard=tensorboard,
    )
    with _resumable(out):
        outcome = _finetune(
            _load(model, threads, device, chosen),
            _Data(data, eval_data, limit, labels=not no_labels),
            out,
            settings,
            augment,
            force,
        )
    if as_json:
        output.print_json(summary(outcome))
    else:
        print_outcome(outcome)


def _check_data(data: str) -> None:
    if data == DIGITS:
        raise ConfigError(
            f"{DIGITS} are the images that the model in the package was never trained on; give "
            f"other data to train on, and --eval-data {DIGITS} to measure on them"
        )


@contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Say at Ctrl-C that nothing is lost, where there is something to lose."""
    from prism.fidelity.checkpoint import FOLDER

    try:
        yield
    except KeyboardInterrupt:
        if not (out / FOLDER).is_dir():
            raise
        print(
            f"prism: interrupted; what was done is in {out / FOLDER}, and the same command goes on "
            f"from there",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None


def _load(source: str, threads: int | None, device: str, plans: tuple[Plan, ...]) -> LoadedModel:
    import torch

    from prism.fidelity.training_plans import check_defaults, check_plans
    from prism.models.load import describe, load

    output.quiet_libraries(loading=True)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {device} cannot be used: {reason}; try cpu") from None
    info = describe(source)
    if plans:
        check_plans(plans, info)
    else:
        check_defaults(info)
    with output.progress(f"loading {source}"):
        stored = str(getattr(info.config, "dtype", None) or _FLOAT32)
        loaded = load(source, _FLOAT32, device)
    stored = stored.removeprefix("torch.")
    if stored != _FLOAT32:
        print(
            f"prism: {source} holds {stored} weights; they train in float32 and are saved so",
            file=sys.stderr,
        )
    return loaded


def _finetune(
    loaded: LoadedModel, data: _Data, out: Path, settings: Settings, augment: str, force: bool
) -> Outcome:
    from prism.fidelity.augmentation import augmentation
    from prism.fidelity.finetune import finetune, hold_out
    from prism.fidelity.samples import open_samples

    transform = augmentation(augment, loaded.info)
    with output.progress(f"reading {data.train}"):
        chosen: dict[str, Any] = {
            "length": settings.length,
            "seed": settings.seed,
            "labels": data.labels,
        }
        samples = open_samples(data.train, loaded, limit=data.limit, **chosen)
        if data.held_out is None:
            samples, held_out = hold_out(samples, settings.seed)
        else:
            held_out = open_samples(data.held_out, loaded, **chosen)
    with shown_progress() as tell:
        return finetune(
            loaded,
            samples,
            held_out,
            out,
            settings,
            force=force,
            transform=transform,
            command=shlex.join(["prism", *sys.argv[1:]]),
            tell=tell,
        )
