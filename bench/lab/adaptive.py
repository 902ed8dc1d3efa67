"""Does the planner choose well over a real link? Prediction error and regret while it changes.

    sudo python -m bench.lab.adaptive [--model random:vit-base random:bert-base] [--rounds 3]

Profiles each model over the lab, then walks through a trace of rates from 5 to 500 Mbit/s and
batches from 1 to 16; in each step every fixed plan and the adaptive choice take turns. The same as
bench/adaptive.py, which needs no rights and emulates its link. Prints two tables per model, then
one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from bench.adaptive import PLANS, TRACE, profile, report, show, walk
from bench.lab.devices import cluster_on
from bench.lab.lab import Lab
from bench.lab.options import add_lab_options, lab_of
from bench.lab.program import Tell, run_to_end, telling
from bench.lab.results import facts_of

import prism
from prism.api.profiling import ProfiledModel
from prism.bench.console import wide_console
from prism.cli.durations import read_seconds
from prism.errors import ConfigError
from prism.models.inputs import main_input
from prism.plan import Plan
from prism.profiler import Settings

TEXT_TOKENS = 128


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    return run_to_end(lambda: run(options), "bench.lab.adaptive")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", default=["random:vit-base", "random:bert-base"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", default="5m", help="time of each profile, such as 90s or 5m")
    parser.add_argument("--plans", nargs="+", default=list(PLANS))
    parser.add_argument("--tokens", type=int, default=TEXT_TOKENS, help="of a text")
    parser.add_argument("--steps", type=int, default=len(TRACE), help="of the trace")
    add_lab_options(parser, nodes=2)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Measure what the options ask for; print tables, then one JSON line.

    Raises:
        ConfigError: an option has a wrong value, or this machine allows no lab.
    """
    read_seconds("--budget", options.budget)
    for name in ("rounds", "steps", "tokens"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, not {getattr(options, name)}")
    torch.set_num_threads(1)
    plans = [Plan.parse(text) for text in options.plans]
    with (
        TemporaryDirectory(prefix="prism-lab-") as scratch,
        lab_of(options) as lab,
        telling() as tell,
        cluster_on(lab, Path(scratch)) as cluster,
    ):
        parts = [contest(lab, cluster, source, plans, options, tell) for source in options.model]
        figures = {"bench": "adaptive", **facts_of(lab, cluster, options), "models": parts}
    print(json.dumps(figures))


def contest(
    lab: Lab,
    cluster: prism.Cluster,
    source: str,
    plans: Sequence[Plan],
    options: argparse.Namespace,
    tell: Tell,
) -> dict[str, Any]:
    """Profile one model and take it through the trace; print its tables and return its figures."""
    lab.set(lab.link.changed(options.rate, options.delay, options.loss))
    tell(f"{source}: loading")
    model = cluster.load(source)
    profiled_over = str(lab.link)
    settings = Settings(segments=(10,), budget_s=read_seconds("--budget", options.budget))
    profiled = ProfiledModel(cluster, model, ("float32",))
    perf = profile(profiled, settings, lambda text: tell(f"{source}: {text}"))
    # Random weights have no accuracy to lose, so the lossy plans are allowed by name.
    model.use_map(perf, allow=plans)
    results = walk(
        lab,
        model,
        plans,
        options.rounds,
        lambda text: tell(f"{source}: {text}"),
        trace=TRACE[: options.steps],
        delay=options.delay,
        length=options.tokens if main_input(model.info) == "input_ids" else None,
    )
    model.unload()
    figures = {"model": source, **report(perf, results, profiled_over)}
    title = f"{source} on {len(lab.boards)} boards, carried by {lab.kind}"
    show(wide_console(), figures, results, title)
    return figures


if __name__ == "__main__":
    sys.exit(main())
