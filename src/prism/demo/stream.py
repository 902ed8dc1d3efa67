"""The demo's main job: profile a model, then choose for a stream of requests on a changing link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from prism.api.profiling import ProfiledModel
from prism.bench.contest import Step, StepResult, run_step
from prism.perfmap import PerformanceMap
from prism.plan import Objective, Plan, Precision
from prism.profiler import Profiler, Progress, Settings
from prism.profiler.points import plans_together
from prism.version import VERSION

if TYPE_CHECKING:
    import torch

    from prism.api.cluster import Cluster
    from prism.api.model import DistributedModel

# Mbit/s and images per request: a link that comes and goes, requests small and large.
TRACE = ((100, 1), (100, 16), (20, 16), (5, 2), (20, 8), (300, 2), (300, 16), (50, 12))
LATENCY = "3ms"
Tell = Callable[[str, int, int], None]
_PRECISIONS: tuple[Precision, ...] = ("float32",)  # the fixed plans have no other
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
    images: torch.Tensor,
    objective: Objective,
    tell: Tell,
    trace: Sequence[tuple[float, int]] = TRACE,
    rounds: int = ROUNDS,
) -> Stream:
    """Profile, then let the planner and fixed plans take turns along a trace.

    Fixed are `local` and the plans on several nodes that a profile measures, in equal parts; the
    planner may use all that it knows.

    Args:
        cluster: with an emulated link.
        model: loaded on it, with an accuracy table.
        images: uint8 pixels, at least as many as the largest request.
        objective: what the planner is told.
        tell: told what is being done, how many steps it has, and how many are done.
        trace: Mbit/s and images per request, step by step.
        rounds: measured requests of each contender in every step.
    """
    perf = _profile(cluster, model, tell)
    model.use_map(perf, objective=objective)
    alike = [1.0] * len(cluster.nodes)
    fixed = [Plan(), *plans_together(model.info.shape, _SETTINGS.segments, alike)]
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
        bench = ProfiledModel(cluster, model, _PRECISIONS)
        path = Path(scratch) / "performance-map.json"
        return Profiler(bench, _SETTINGS, path, report, VERSION).run()


def _counter(tell: Tell, doing: str, total: int, done: int) -> Callable[[], None]:
    """Return a call that counts one round more."""
    rounds = iter(range(done, total + 1))

    def advance() -> None:
        tell(doing, total, next(rounds))

    advance()
    return advance
