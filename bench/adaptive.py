"""Does the planner choose well? Prediction error and regret over a changing link.

    python bench/adaptive.py [--model random:vit-base] [--rounds 3] [--budget 5m]

Profiles the model on two nodes of this machine with a core each, then walks through a trace of
emulated bandwidths and batch sizes. In each step every fixed plan and the adaptive choice take
turns. Reports the error of each prediction (all of them at links and batch sizes that were not
profiled, but for one), the regret of each choice, and the total time of every policy. Prints two
tables, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import prism
from prism.api.model import DistributedModel
from prism.api.profiling import ProfiledModel
from prism.bench.console import wide_console
from prism.bench.contest import (
    ADAPTIVE,
    ChangingLink,
    Step,
    StepResult,
    run_step,
    summary,
    totals,
)
from prism.cli.durations import read_seconds
from prism.errors import ConfigError
from prism.models.synthetic import synthetic_inputs
from prism.perfmap import PerformanceMap
from prism.plan import Plan
from prism.profiler import Profiler, Progress, Settings

PROFILED_AT = "100mbit,3ms"
PLANS = ("local", "batch:2", "seq:2:full", "seq:2:C10:f16", "seq:2:C10:lag1:f16")
# Bandwidths from 5 to 500 Mbit/s and batches from 1 to 16, so that the best plan changes often.
TRACE = (
    (500, 1),
    (200, 2),
    (50, 8),
    (20, 1),
    (5, 1),
    (20, 4),
    (100, 16),
    (5, 2),
    (300, 6),
    (30, 3),
)
PAPER_PASSES = 2880


def main() -> None:
    options = parse()
    console = wide_console()
    plans = [Plan.parse(text) for text in PLANS]
    with (
        prism.local_cluster(nodes=2, threads=1, link=PROFILED_AT) as cluster,
        console.status("loading") as status,
    ):
        model = cluster.load(options.model)
        settings = Settings(segments=(10,), budget_s=options.budget_s)
        perf = profile(ProfiledModel(cluster, model, ("float32",)), settings, status.update)
        # Random weights have no accuracy to lose, so the lossy plans are allowed by name.
        model.use_map(perf, allow=plans)
        results = walk(cluster, model, plans, options.rounds, status.update)
        hardware = cluster.facts("node0").hardware
    figures = {
        "bench": "adaptive",
        "model": options.model,
        "hardware": hardware,
        "nodes": 2,
        "threads": 1,
        "emulated": True,
        "torch": torch.__version__,
        "rounds": options.rounds,
        **report(perf, results, PROFILED_AT),
    }
    show(console, figures, results, f"2 nodes on one {hardware}, a core each; emulated link")
    print(json.dumps(figures))


def profile(
    target: ProfiledModel, settings: Settings, tell: Callable[[str], object]
) -> PerformanceMap:
    """Measure a map that nobody keeps."""

    def pass_on(progress: Progress) -> None:
        left = "" if progress.left_s is None else f", {progress.left_s:.0f} s left"
        tell(f"profile {progress.done}/{progress.total}: {progress.doing}{left}")

    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "map.json"
        return Profiler(target, settings, path, pass_on, prism.__version__).run()


def walk(
    network: ChangingLink,
    model: DistributedModel,
    plans: Sequence[Plan],
    rounds: int,
    tell: Callable[[str], object],
    *,
    trace: Sequence[tuple[float, int]] = TRACE,
    delay: str = "3ms",
    length: int | None = None,
) -> list[StepResult]:
    """Take a model through a trace of bandwidths and batch sizes.

    Args:
        network: what joins the nodes.
        model: loaded on them, with a map.
        plans: the fixed plans.
        rounds: measured requests of each contender in every step.
        tell: told what is being done.
        trace: Mbit/s and samples per request, step by step.
        delay: of the link, one way.
        length: tokens per sample; None = as many as the model takes.
    """
    results = []
    length = length or model.info.shape.max_length
    for number, (mbps, batch) in enumerate(trace):
        tell(f"step {number + 1} of {len(trace)}: {mbps:g} Mbit/s, batch {batch}")
        step = Step(f"{mbps:g}mbit,{delay}", mbps * 1e6, batch)
        inputs = synthetic_inputs(model.info, batch, length)
        results.append(run_step(network, model, step, plans, inputs, rounds))
    return results


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="random:vit-base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", default="5m", help="time of the profile, such as 90s or 5m")
    options = parser.parse_args()
    try:
        options.budget_s = read_seconds("--budget", options.budget)
    except ConfigError as error:
        parser.error(str(error))
    return options


def report(perf: PerformanceMap, results: list[StepResult], link: str) -> dict[str, Any]:
    return {
        "profile": {
            "link": link,
            "passes": perf.passes,
            "seconds": perf.seconds_spent,
            "paper_passes": PAPER_PASSES,
            "fitted_bps": perf.link.bandwidth_bps,
            "fitted_latency_s": perf.link.latency_s,
            "held_out_errors": [each.error for each in perf.held_out],
        },
        **summary(results),
    }


def show(console: Console, figures: dict[str, Any], results: list[StepResult], title: str) -> None:
    fixed = list(dict.fromkeys(plan for each in results for plan in each.measured_s))
    fixed.remove(ADAPTIVE)
    table = Table(title=f"{title}; seconds")
    for column in ("Mbit/s", "B", "chosen", "best", "regret", "predicted", "measured", *fixed):
        table.add_column(column, justify="left" if column in ("chosen", "best") else "right")
    for result in results:
        table.add_row(
            f"{result.step.bandwidth_bps / 1e6:.0f}",
            str(result.step.batch),
            result.choice,
            result.best,
            f"{result.regret:.1%}",
            f"{result.predicted_s[result.choice]:.2f}",
            f"{result.measured_s['adaptive']:.2f}",
            *(
                f"{result.measured_s[plan]:.2f}" if plan in result.measured_s else ""
                for plan in fixed
            ),
        )
    console.print(table)
    policies = Table(title="one request of every step")
    policies.add_column("policy")
    policies.add_column("s", justify="right")
    for policy, seconds in sorted(totals(results).items(), key=lambda item: item[1]):
        policies.add_row(policy, f"{seconds:.2f}")
    console.print(policies)
    profile = figures["profile"]
    console.print(
        f"profile: {profile['passes']} passes in {profile['seconds']:.0f} s "
        f"(the paper's sweep: {PAPER_PASSES} passes); prediction error, median: "
        f"{figures['median_error']:.1%}; regret, median {figures['median_regret']:.1%}, worst "
        f"{figures['worst_regret']:.1%}"
    )


if __name__ == "__main__":
    main()
