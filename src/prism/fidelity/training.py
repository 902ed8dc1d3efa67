"""The steps of a fine-tuning: one model learns to answer under every plan as the original does.

    for each step:
        for inputs in the samples of the step, those of equal length together:
            target = original(inputs)                     # frozen
            for plan in exact, smallest, random:
                (distance(model under plan, target) * share / 3).backward()
        clip, step the optimiser

All chance of a step follows from the seed and the step's number, so a training that goes on from a
checkpoint takes the very steps that an unbroken one takes.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from prism.errors import ConfigError
from prism.fidelity.augmentation import Inputs, Transform
from prism.fidelity.checkpoint import Checkpoint, interrupts_held_back
from prism.fidelity.distillation import answer_of, distance, label_loss
from prism.fidelity.labels import largest_batch
from prism.fidelity.sample_set import Samples
from prism.fidelity.schedule import rate_factor, rows_of_step
from prism.fidelity.training_plans import Sandwich, trained_as
from prism.models.inputs import prepare
from prism.models.load import LoadedModel
from prism.models.virtual import virtual
from prism.plan import Plan

_CLIP = 1.0
_DECAY = 0.01
# Peak learning rates by parameters: small models take and need larger steps.
_RATES = ((10e6, 1e-4), (150e6, 5e-5), (math.inf, 3e-5))


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is fine-tuned.

    Attributes:
        plans: what for; empty = both groupings on 2 to 4 nodes at 1/10 and 1/5 of the positions,
            lagged too where the family defines lag, float16 on the wire.
        steps: how many; None = as many as `budget_s` allows.
        budget_s: seconds of training where `steps` is None; both evaluations come on top.
        batch: samples per step.
        learning_rate: its peak; None = by the model's size.
        labels_weight: of the cross entropy with labels, where there are some.
        unequal: how often the random plan of a step gets unequal partitions, 0..1.
        length: tokens per text that the samples were opened with; None = as long as they are.
        seed: of order, plans and augmentation; below 2^31.
        checkpoint_every_s: seconds between checkpoints.
        tensorboard: a folder for TensorBoard logs; None = none.
    """

    plans: tuple[Plan, ...] = ()
    steps: int | None = None
    budget_s: float = 1200.0
    batch: int = 8
    learning_rate: float | None = None
    labels_weight: float = 0.5
    unequal: float = 0.25
    length: int | None = None
    seed: int = 0
    checkpoint_every_s: float = 60.0
    tensorboard: Path | None = None

    def __post_init__(self) -> None:
        positive = {
            "steps": self.steps,
            "budget": self.budget_s,
            "batch": self.batch,
            "learning-rate": self.learning_rate,
            "checkpoint-every": self.checkpoint_every_s,
        }
        for name, value in positive.items():
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"--{name} must be above 0, not {value}")
        if not 0 <= self.labels_weight < math.inf:
            raise ConfigError(f"--labels-weight must be 0 or more, not {self.labels_weight}")
        if not 0 <= self.unequal <= 1:
            raise ConfigError(f"the share of unequal plans must lie in 0..1, not {self.unequal}")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"--seed must lie in 0..{2**31 - 1}, not {self.seed}")

    def rate_for(self, model: torch.nn.Module) -> float:
        """Return the peak learning rate for a model."""
        if self.learning_rate is not None:
            return self.learning_rate
        count = sum(parameter.numel() for parameter in model.parameters())
        return next(rate for most, rate in _RATES if count <= most)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did.

    Attributes:
        number: from 1 on.
        done: part of the training that is behind, 0..1.
        rate: its learning rate.
        losses: by what was trained: `exact`, `smallest`, `random`.
        gradient_norm: before clipping.
        elapsed_s: of the training so far.
    """

    number: int
    done: float
    rate: float
    losses: Mapping[str, float]
    gradient_norm: float
    elapsed_s: float


class Training:
    """One fine-tuning: the frozen original, the model that learns, and how far it is.

    Dropout stays off: the model learns to be what it already is.

    Args:
        original: the model; stays as it is.
        samples: what it trains on.
        settings: its `plans` must be given.
        transform: applied to the prepared inputs of every step.
    """

    def __init__(
        self,
        original: LoadedModel,
        samples: Samples,
        settings: Settings,
        transform: Transform | None = None,
    ) -> None:
        self.model: PreTrainedModel = copy.deepcopy(original.model)
        self.steps_done = 0
        self.elapsed_s = 0.0
        self._original = original
        self._samples = samples
        self._settings = settings
        self._transform = transform
        self._sandwich = Sandwich(trained_as(settings.plans), settings.unequal)
        self._rate = settings.rate_for(self.model)
        self._optimizer = torch.optim.AdamW(_parameter_groups(self.model), lr=self._rate)

    @property
    def done(self) -> float:
        """The part of the training that is behind, 0..1."""
        if self._settings.steps is None:
            return min(1.0, self.elapsed_s / self._settings.budget_s)
        return min(1.0, self.steps_done / self._settings.steps)

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, in this process or another."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.steps_done, self.elapsed_s = state["steps_done"], state["elapsed_s"]

    def state(self) -> dict[str, Any]:
        """Return everything that the steps to come depend on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps_done": self.steps_done,
            "elapsed_s": self.elapsed_s,
        }

    def run(self, checkpoint: Checkpoint, tell: Callable[[Step], object]) -> None:
        """Take the steps that are left; write a checkpoint now and then, at Ctrl-C and at the end.

        Raises:
            ConfigError: the loss is no number any more, or a checkpoint cannot be written.
        """
        if self.done >= 1.0:
            return
        try:
            while self.done < 1.0:
                tell(self.step())
                if checkpoint.due:
                    self._save(checkpoint)
        except KeyboardInterrupt:
            self._save(checkpoint)
            raise
        self._save(checkpoint)

    def step(self) -> Step:
        """Take one step; Ctrl-C in it leaves the training as it was before."""
        started_s = time.monotonic()
        losses = self._gradients()
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP))
        if not math.isfinite(norm):
            raise ConfigError(
                f"the gradient is {norm} at step {self.steps_done + 1}, with a learning rate of "
                f"{self._rate:g}; give a lower --learning-rate"
            )
        rate = self._rate * rate_factor(self._position())
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with interrupts_held_back():
            self._optimizer.step()
            self.steps_done += 1
            self.elapsed_s += time.monotonic() - started_s
        return Step(self.steps_done, self.done, rate, losses, norm, self.elapsed_s)

    def _gradients(self) -> dict[str, float]:
        """Add up the gradients of a step, each sample with equal weight; return the losses."""
        settings, samples = self._settings, self._samples
        rows = rows_of_step(self.steps_done, settings.batch, len(samples), settings.seed)
        plans = self._sandwich.draw(random.Random(self._chance()))
        generator = self._generator()
        losses = dict.fromkeys(plans, 0.0)
        self._optimizer.zero_grad()
        most = largest_batch(self._original.info, len(rows))
        for part in samples.equal_batches(most, rows):
            inputs, labels_B = self._batch(part, plans, generator)
            share = len(part) / len(rows)
            for name, loss in self._backward(inputs, labels_B, plans, share).items():
                losses[name] += share * loss
        return losses

    def _batch(
        self, rows: Sequence[int], plans: Mapping[str, Plan], generator: torch.Generator
    ) -> tuple[Inputs, torch.Tensor | None]:
        least = max(plan.least_length for plan in plans.values())
        inputs = prepare(self._original.info, self._samples.batch(rows, least), self.model)
        if self._transform is not None:
            inputs = self._transform(inputs, generator)
        labels_B = self._samples.labels
        return inputs, None if labels_B is None else labels_B[list(rows)].to(self.model.device)

    def _backward(
        self,
        inputs: Inputs,
        labels_B: torch.Tensor | None,
        plans: Mapping[str, Plan],
        share: float = 1.0,
    ) -> dict[str, float]:
        """Add up the gradients of plans for a share of a step, one graph in memory at a time."""
        info, config = self._original.info, self.model.config
        with torch.no_grad():
            target = answer_of(info, self._original.model, inputs)
        weight = self._settings.labels_weight
        losses = {}
        for name, plan in plans.items():
            with virtual(self.model, plan, inputs.get("attention_mask")):
                answer = answer_of(info, self.model, inputs)
            loss = distance(answer, target, config)
            if labels_B is not None and weight > 0:
                loss = loss + weight * label_loss(answer, labels_B)
            (loss * (share / len(plans))).backward()  # type: ignore[no-untyped-call]
            losses[name] = loss.item()
        return losses

    def _position(self) -> float:
        """Return where on the schedule the step to come lies: the middle of a counted one."""
        if self._settings.steps is None:
            return self.done
        return (self.steps_done + 0.5) / self._settings.steps

    def _chance(self) -> int:
        return (self._settings.seed << 32) + self.steps_done

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self._chance())

    def _save(self, checkpoint: Checkpoint) -> None:
        with interrupts_held_back():
            checkpoint.write(self.state())


def _parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Norms and biases are vectors; they do not decay."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    return [
        {"params": [each for each in parameters if each.dim() > 1], "weight_decay": _DECAY},
        {"params": [each for each in parameters if each.dim() <= 1], "weight_decay": 0.0},
    ]
