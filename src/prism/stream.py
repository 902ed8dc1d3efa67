"""The demo's main job: profile a model, then choose for a stream of requests on a changing link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import prism
from prism.cluster.bench import ClusterBench
from prism.contest import Step, StepResult, run_step
from prism.core import Objective, Plan
from prism.perfmap import PerformanceMap
from prism.profiler import Profiler, Progress, Settings

if TYPE_CHECKING:
    import torch

    from prism.cluster.session import Cluster, DistributedModel

# Mbit/s and images per request: a link that comes and goes, requests small and large.
TRACE = ((100, 1), (100, 16), (20, 16), (5, 2), (20, 8), (300, 2), (300, 16), (50, 12))
LATENCY = "3ms"
MAX_ACCURACY_DROP = 0.02
Tell = Callable[[str, int, int], None]
_SETTINGS = Settings(batches=(1, 4, 16), segments=(10,), passes=110, held_out=4)
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Stream:
    """What came of the stream.

    Attributes:
        perf: the map that was measured first.
        objective: what the planner was told.
        results: step by step.
    """

    perf: PerformanceMap
    objective: Objective
    results: tuple[StepResult, ...]


def stream(
    cluster: Cluster,
    model: DistributedModel,
    plans: Sequence[Plan],
    images: torch.Tensor,
    tell: Tell,
    trace: Sequence[tuple[float, int]] = TRACE,
    rounds: int = ROUNDS,
) -> Stream:
    """Profile, then let the planner and every fixed plan take turns along a trace.

    Args:
        cluster: with an emulated link.
        model: loaded on it, with an accuracy table.
        plans: those that are run as fixed policies; the planner may use all that it knows.
        images: uint8 pixels, at least as many as the largest request.
        tell: told what is being done, how many steps it has, and how many are done.
        trace: Mbit/s and images per request, step by step.
        rounds: measured requests of each contender in every step.
    """
    perf = _profile(cluster, model, tell)
    objective = Objective("latency", MAX_ACCURACY_DROP)
    model.use_map(perf, objective=objective)
    fixed = [plan for plan in plans if plan.shape in perf.by_shape or plan.strategy == "batch"]
    results = []
    for number, (mbps, batch) in enumerate(trace):
        step = Step(f"{mbps:g}mbit,{LATENCY}", mbps * 1e6, min(batch, len(images)))
        doing = f"{mbps:g} Mbit/s, {step.batch} images"
        advance = _counter(tell, doing, len(trace) * (rounds + 1), number * (rounds + 1))
        inputs = {"pixel_values": images[: step.batch]}
        results.append(run_step(cluster, model, step, fixed, inputs, rounds, advance))
    return Stream(perf, objective, tuple(results))


def _profile(cluster: Cluster, model: DistributedModel, tell: Tell) -> PerformanceMap:
    def report(progress: Progress) -> None:
        tell(f"profile: {progress.doing}", progress.total, progress.done)

    with TemporaryDirectory(prefix="prism-") as scratch:
        bench = ClusterBench(cluster, model)
        path = Path(scratch) / "performance-map.json"
        return Profiler(bench, _SETTINGS, path, report, prism.__version__).run()


def _counter(tell: Tell, doing: str, total: int, done: int) -> Callable[[], None]:
    """Return a call that counts one round more."""
    rounds = iter(range(done, total + 1))

    def advance() -> None:
        tell(doing, total, next(rounds))

    advance()
    return advance
