"""One checkpoint for every plan: fine-tuning from the first measurement to the finished directory.

    measure the original -> train -> write the model -> measure it -> publish

Each step keeps what it did in the output directory's checkpoint; the same call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from prism.errors import ModelError, RequestError
from prism.fidelity.accuracy import FILE_NAME, Subject, write_table
from prism.fidelity.answers import compare, read_answers
from prism.fidelity.augmentation import Transform
from prism.fidelity.checkpoint import FOLDER, Checkpoint, interrupts_held_back
from prism.fidelity.copies import answer
from prism.fidelity.evaluate import evaluate, first_answer
from prism.fidelity.output import BEFORE_NAME, check_out, publish, write_model
from prism.fidelity.sample_set import Samples
from prism.fidelity.summary import Evaluated, summarise
from prism.fidelity.training import Settings, Step, Training
from prism.fidelity.training_log import TrainingLog, check_log, open_log
from prism.fidelity.training_plans import EXACT, check_defaults, check_plans, default_plans
from prism.models.load import LoadedModel, load
from prism.plan import Plan

_HELD_OUT = 0.1
_MOST_HELD_OUT = 200  # every plan is measured on each of them, twice
_RESULT = "result"  # in the checkpoint's folder
Phase = Literal["before", "training", "after"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fine-tuning is.

    Attributes:
        phase: measuring `before`, `training`, measuring `after`.
        done: part of the phase that is behind, 0..1.
        step: the latest; None outside of training.
    """

    phase: Phase
    done: float
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished fine-tuning.

    Attributes:
        out: the directory of the model.
        fingerprint: of the new weights.
        plans: what it was trained for.
        steps, seconds: of training.
        before, after: what `local` and each plan are worth, of the original and of the new weights.
        kept: what the new weights' exact answers are worth against the original's.
        skipped: files or rows of the data that could not be used.
    """

    out: Path
    fingerprint: str
    plans: tuple[Plan, ...]
    steps: int
    seconds: float
    before: tuple[Evaluated, ...]
    after: tuple[Evaluated, ...]
    kept: Evaluated
    skipped: int


Tell = Callable[[Progress], object]


def hold_out(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """Split samples into those that train and a tenth, 200 at most, that never does.

    Args:
        samples: all of them.
        seed: of the draw.

    Raises:
        RequestError: there is only one sample.
    """
    count = len(samples)
    if count < 2:
        raise RequestError(
            f"{samples.name} holds {count} sample, none can be held out; give more, or --eval-data"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    held = max(1, min(_MOST_HELD_OUT, round(count * _HELD_OUT)))
    train, held_out = sorted(order[held:]), sorted(order[:held])
    return (
        samples.part(train, samples.name, samples.skipped),
        samples.part(held_out, f"{samples.name}, held out", 0),
    )


def finetune(
    loaded: LoadedModel,
    samples: Samples,
    held_out: Samples,
    out: Path,
    settings: Settings | None = None,
    *,
    force: bool = False,
    transform: Transform | None = None,
    command: str = "prism.fidelity.finetune.finetune(...)",
    tell: Tell = lambda progress: None,
) -> Outcome:
    """Fine-tune a model so that one checkpoint serves every plan; write it to a directory.

    Stopped at any moment, by Ctrl-C or a kill, the same call goes on from its last checkpoint.

    Args:
        loaded: the original, with weights in float32; stays as it is.
        samples: what it trains on; labels, where there are some, are learnt too.
        held_out: what it is measured on, before and after.
        out: the directory to make.
        settings: how; None = the defaults.
        force: whether files in `out` may be replaced.
        transform: applied to the prepared inputs of every training step.
        command: how this came about, for the tables.
        tell: called with every bit of progress.

    Raises:
        ConfigError: `out` cannot be written or holds something else, or the training diverges.
        PlanError: a plan is exact, or not defined for the model.
        RequestError: the model cannot take the samples.
        ModelError: the model's weights cannot be trained.
    """
    settings = _with_plans(settings or Settings(), loaded, samples)
    check_out(out, loaded.info.files, force)
    check_log(settings.tensorboard)
    _check_weights(loaded)
    for data in (samples, held_out):
        data.check_lengths(loaded.info, settings.plans)
    first_answer(loaded, held_out)
    checkpoint = Checkpoint(
        out / FOLDER,
        _arguments(loaded, samples, held_out, settings, transform),
        settings.checkpoint_every_s,
    )
    training = Training(loaded, samples, settings, transform)
    if (state := checkpoint.open(discard=force)) is not None:
        training.resume(state)
    measure = _Measure(held_out, settings, command, checkpoint.folder, tell)
    before = measure(loaded, "before")
    with open_log(settings.tensorboard, training.steps_done) as log:
        log.accuracy(0, before)
        training.run(checkpoint, lambda step: _note(step, log, tell))
        result = checkpoint.folder / _RESULT
        write_model(training.model, loaded.info, result)
        tuned = load(str(result), device=str(loaded.model.device))
        after = measure(tuned, "after")
        log.accuracy(training.steps_done, after)
    kept = _kept(loaded, tuned, held_out)

    measure.write(result / BEFORE_NAME, loaded, before)
    measure.write(result / FILE_NAME, tuned, after)
    with interrupts_held_back():
        checkpoint.mark_publishing()
        publish(result, out)
        checkpoint.remove()
    return Outcome(
        out,
        tuned.fingerprint,
        settings.plans,
        training.steps_done,
        training.elapsed_s,
        before,
        after,
        kept,
        samples.skipped + held_out.skipped,
    )


def _kept(original: LoadedModel, tuned: LoadedModel, held_out: Samples) -> Evaluated:
    """Compare exact answers, a sample at a time: those of language models are large."""
    rows: list[list[float]] = []
    for index in range(len(held_out)):
        inputs = held_out.batch([index])
        before, after = (
            read_answers(each.info, answer(each, EXACT, inputs), inputs)
            for each in (original, tuned)
        )
        rows += compare(before, after, None)
    longest = held_out.longest(original.info)
    return summarise(EXACT, before.metric, rows, held_out.name, longest)


def _note(step: Step, log: TrainingLog, tell: Tell) -> None:
    log.step(step)
    tell(Progress("training", step.done, step))


class _Measure:
    """Measures `local` and every plan on the held-out samples, going on where it was stopped."""

    def __init__(
        self, held_out: Samples, settings: Settings, command: str, folder: Path, tell: Tell
    ) -> None:
        self._held_out = held_out
        self._settings = settings
        self._command = command
        self._folder = folder
        self._tell = tell

    def __call__(
        self, loaded: LoadedModel, phase: Literal["before", "after"]
    ) -> tuple[Evaluated, ...]:
        seen = 0

        def advance() -> None:
            nonlocal seen
            seen += 1
            self._tell(Progress(phase, seen / len(self._held_out)))

        return evaluate(
            loaded,
            self._held_out,
            (EXACT, *self._settings.plans),
            batch=self._settings.batch,
            resume=self._folder / f"{phase}.json",
            advance=advance,
        )

    def write(self, path: Path, loaded: LoadedModel, table: tuple[Evaluated, ...]) -> None:
        """Write a table of what was measured of `loaded`, in place of any that is there."""
        subject = Subject.of(loaded.fingerprint, self._held_out, self._settings.length)
        write_table(path, subject, table, self._command, force=True)


def _check_weights(loaded: LoadedModel) -> None:
    """Check that all weights are there in float32, as gradients need them.

    Raises:
        ModelError: they are not.
    """
    name = loaded.info.source or type(loaded.model).__name__
    if getattr(loaded.model.config, "quantization_config", None) is not None:
        raise ModelError(
            f"{name} is quantised, and such weights cannot be trained; fine-tune the model it was "
            f"made from, and quantise the result"
        )
    for key, parameter in loaded.model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ModelError(
                f"{name} has {key} in {parameter.dtype}; load it in float32 to fine-tune it"
            )


def _with_plans(settings: Settings, loaded: LoadedModel, samples: Samples) -> Settings:
    info = loaded.info
    if not settings.plans:
        check_defaults(info)
    plans = settings.plans or default_plans(info.family, samples.longest(info))
    check_plans(plans, info)
    counted = dict.fromkeys(plan.shape for plan in plans)  # which nodes makes no difference
    return replace(settings, plans=tuple(map(Plan.parse, counted)))


def _arguments(
    loaded: LoadedModel,
    samples: Samples,
    held_out: Samples,
    settings: Settings,
    transform: Transform | None,
) -> dict[str, str]:
    """Return what the steps of a training depend on, by the names a person knows them by."""
    counted = settings.steps is not None
    values = {
        "MODEL": loaded.fingerprint[:12],
        "DATA": samples.digest[:12],
        "--eval-data": held_out.digest[:12],
        "--plans": ",".join(map(str, settings.plans)),
        **({"--steps": settings.steps} if counted else {"--budget": f"{settings.budget_s:g}s"}),
        "--batch": settings.batch,
        "--learning-rate": settings.rate_for(loaded.model),
        "--labels-weight": settings.labels_weight,
        "--augment": "none" if transform is None else transform.__qualname__,
        "--seed": settings.seed,
        "unequal": settings.unequal,
    }
    return {name: str(value) for name, value in values.items()}
