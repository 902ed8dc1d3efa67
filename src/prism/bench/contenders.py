"""Contenders that take turns: what they took, and how they compare within a round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prism.profiler.turns import take_turns
from prism.record import RunRecord

if TYPE_CHECKING:
    from prism.api.model import DistributedModel

# Runs one request; returns its record where it has one.
Run = Callable[[], RunRecord | None]
PARTS = ("compute", "staging", "comm", "input", "output")


@dataclass(frozen=True, slots=True)
class Alternation:
    """What contenders took.

    Attributes:
        seconds: by contender, the wall time of each round.
        records: by contender, the first node's record of each round; none of those without.
    """

    seconds: Mapping[str, list[float]]
    records: Mapping[str, list[RunRecord]]

    def speedup(self, name: str, against: str) -> tuple[float, float, float]:
        """Return how many times as fast a contender is as another one.

        Ratios are taken within a round, so that what else the machine did then hits both.

        Returns:
            Lower quartile, median, upper quartile.
        """
        pairs = zip(self.seconds[against], self.seconds[name], strict=True)
        return quartiles([other_s / own_s for other_s, own_s in pairs])

    def part_ms(self, name: str, part: str) -> float | None:
        """Return the median of one of `PARTS` in milliseconds; None without records."""
        return median_part_ms(self.records[name], part)


def requests(model: DistributedModel, plan: str, inputs: Mapping[str, Any]) -> Run:
    """Return a contender that runs one and the same request under one plan."""

    def run() -> RunRecord | None:
        model(plan=plan, **inputs)
        return model.last_record

    return run


def alternate(
    contenders: Mapping[str, Run], rounds: int, tell: Callable[[int], object] = lambda number: None
) -> Alternation:
    """Let all contenders run once in every round, after one run each to warm up.

    Args:
        contenders: by name.
        rounds: at least 1.
        tell: told the number of a round, from 1, before it begins.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    records: dict[str, list[RunRecord]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()  # buffers, connections, kernels
    for number, order in enumerate(take_turns(list(contenders), rounds), start=1):
        tell(number)
        for name in order:
            started_s = time.perf_counter()
            record = contenders[name]()
            seconds[name].append(time.perf_counter() - started_s)
            if record is not None:
                records[name].append(record)
    return Alternation(seconds, records)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile; all the same for a single value."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def median_part_ms(records: Sequence[RunRecord], part: str) -> float | None:
    """Return the median of one of `PARTS` in milliseconds; None without records."""
    if not records:
        return None
    seconds: list[float] = [getattr(each, f"{part}_s") for each in records]
    return round(1e3 * statistics.median(seconds), 2)
