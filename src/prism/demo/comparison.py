"""What `prism demo` measures: one small real model under several plans, on nodes of this machine.

Owns the list of plans, the requests and the arithmetic; gives plain data, which the command draws.
It works on a cluster that is already open, so that a later stage can go on with the same nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from prism.bench.contest import plans_at
from prism.errors import ConfigError
from prism.fidelity.metrics import wilson_interval
from prism.models.int8 import engine
from prism.plan import Plan
from prism.profiler.turns import take_turns
from prism.record import RunRecord

if TYPE_CHECKING:
    from prism.api.model import DistributedModel

BATCH = 16
_SINGLES = 20  # requests of one image, per plan
# Cluster Means beside Segment Means of the same number, lag and wire.
_SEQUENCES = (
    "full",
    *("C10:f16", "L10:f16"),
    *("C10:lag1:f16", "L10:lag1:f16"),
    *("C4:lag1:f16", "L4:lag1:f16"),
)


@dataclass(frozen=True, slots=True)
class Timing:
    """What requests of one size cost under one plan; the parts are the median request's.

    Attributes:
        batch: images per request.
        runs: requests measured, after one that warms up.
        total_s: median time of a request; the other times are the first node's share of it.
    """

    batch: int
    runs: int
    total_s: float
    compute_s: float
    comm_s: float
    staging_s: float
    input_s: float
    output_s: float


@dataclass(frozen=True, slots=True)
class PlanResult:
    """What one plan answered, and what that cost.

    Attributes:
        plan: in text form.
        exact: whether it answers as one node does, up to rounding.
        images: how many it was asked.
        correct: how many it named rightly.
        agreeing: how many it named as one node did.
        input_bytes: pixels sent to helpers, per image.
        exchanged_bytes: sent between nodes inside the model, per image.
        recovered: requests that were finished after a node failed; their answers are another
            plan's.
        timings: by images per request; a batch of one cannot be split.
    """

    plan: str
    exact: bool
    images: int
    correct: int
    agreeing: int
    input_bytes: float
    exchanged_bytes: float
    recovered: int
    timings: tuple[Timing, ...]

    @property
    def accuracy(self) -> float:
        """Share of images named rightly."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95 % interval."""
        return wilson_interval(self.correct, self.images)

    @property
    def agreement(self) -> float:
        """Share of images named as one node does."""
        return self.agreeing / self.images

    def timing(self, batch: int) -> Timing | None:
        """Return the timing of requests of `batch` images, if there is one."""
        return next((each for each in self.timings if each.batch == batch), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, the derived shares included."""
        shares = {"accuracy": self.accuracy, "agreement": self.agreement}
        return {**asdict(self), **shares, "interval_95": list(self.interval)}


def plans_for(nodes: int) -> tuple[Plan, ...]:
    """Return the plans to compare on so many nodes, one node's first.

    Raises:
        ConfigError: there is nothing to compare on one node.
    """
    if nodes < 2:
        raise ConfigError(f"the demo compares one node with several; give 2 or more, not {nodes}")
    several = [f"batch:{nodes}", *(f"seq:{nodes}:{each}" for each in _SEQUENCES)]
    # One node again, computing in 8 bits, where torch can do that.
    alone = ["local", "local:int8"] if engine() else ["local"]
    return tuple(map(Plan.parse, (*alone, *several)))


def requests_for(images: int, plans: Sequence[Plan]) -> int:
    """Return how many requests `compare` makes, warming up included."""
    whole = len(plans) * (1 + math.ceil(images / BATCH))
    return whole + len(plans_at(plans, 1)) * (1 + min(_SINGLES, images))


def compare(
    model: DistributedModel,
    plans: Sequence[Plan],
    images: torch.Tensor,
    labels: torch.Tensor,
    advance: Callable[[], object] = lambda: None,
) -> list[PlanResult]:
    """Run all images under every plan, the plans taking turns so that noise falls on all alike.

    Args:
        model: a classifier, loaded on enough nodes.
        plans: the first is what the others are compared with.
        images: uint8 pixels `(count, channels, height, width)`.
        labels: their classes.
        advance: called after every request.
    """
    tallies = {plan: _Tally() for plan in plans}
    chunks = range(0, len(images), BATCH)
    singles = plans_at(plans, 1)

    def ask(plan: Plan, pixels: torch.Tensor) -> tuple[torch.Tensor, RunRecord]:
        logits = model(plan=plan, pixel_values=pixels).logits
        assert model.last_record is not None
        advance()
        return logits.argmax(-1), model.last_record

    for plan in plans:
        ask(plan, images[:BATCH])
    for start, order in zip(chunks, take_turns(plans, len(chunks)), strict=True):
        pixels, truth = images[start : start + BATCH], labels[start : start + BATCH]
        answers = {plan: ask(plan, pixels) for plan in order}
        reference, _ = answers[plans[0]]
        for plan, (said, record) in answers.items():
            tallies[plan].count(pixels, said == truth, said == reference, record)
    for plan in singles:
        ask(plan, images[:1])
    for index, order in enumerate(take_turns(singles, min(_SINGLES, len(images)))):
        for plan in order:
            _, record = ask(plan, images[index : index + 1])
            tallies[plan].records.append(record)
    return [tally.result(plan) for plan, tally in tallies.items()]


class _Tally:
    """The answers and records of one plan, as they come in."""

    def __init__(self) -> None:
        self.records: list[RunRecord] = []
        self._images = self._correct = self._agreeing = 0
        self._input_bytes = self._exchanged_bytes = 0

    def count(
        self,
        pixels: torch.Tensor,
        right: torch.Tensor,
        same: torch.Tensor,
        record: RunRecord,
    ) -> None:
        helpers = record.per_node.values()
        self.records.append(record)
        self._images += len(pixels)
        self._correct += int(right.sum())
        self._agreeing += int(same.sum())
        self._input_bytes += sum(each.batch for each in helpers) * pixels[0].nbytes
        self._exchanged_bytes += sum(each.bytes_sent for each in (record, *helpers))

    def result(self, plan: Plan) -> PlanResult:
        fine = [record for record in self.records if record.outcome == "ok"]
        return PlanResult(
            plan=str(plan),
            exact=plan.exact,
            images=self._images,
            correct=self._correct,
            agreeing=self._agreeing,
            input_bytes=self._input_bytes / self._images,
            exchanged_bytes=self._exchanged_bytes / self._images,
            recovered=len(self.records) - len(fine),
            timings=tuple(_timings(fine)),
        )


def _timings(records: Sequence[RunRecord]) -> Iterator[Timing]:
    sizes = {record.batch for record in records}
    # A last request of what was left over is one run only, too few for a median.
    for batch in sorted(sizes & {1, max(sizes, default=1)}):
        runs = sorted(
            (record for record in records if record.batch == batch), key=lambda run: run.total_s
        )
        middle = runs[len(runs) // 2]
        yield Timing(
            batch=batch,
            runs=len(runs),
            total_s=middle.total_s,
            compute_s=middle.compute_s,
            comm_s=middle.comm_s,
            staging_s=middle.staging_s,
            input_s=middle.input_s,
            output_s=middle.output_s,
        )
