"""What does a server built on prism answer in time, and how late, as the load rises?

    python -m bench.load [--model random:vit-base] [--loads 0.3 0.6 0.9 1.2 1.6 2.0] [--json]

Requests of one row arrive at random moments (Poisson), whether earlier ones are answered or not, at
rates told as parts of what one node can answer. Three policies take turns in one run: the planner's
choice (adaptive), the first node only (local), every request split (split). All have the server's
queue and joining; what HTTP adds is not in it. Latency counts from the moment a request should have
come. Goodput counts answers within the limit, `--limit` times what one node needs for a row.

Two nodes of this machine with a core each, on an emulated link; `bench.lab.load` is the same over a
real one. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from bench.adaptive import profile
from rich.console import Console
from rich.table import Table

import prism
from prism.api.profiling import ProfiledModel
from prism.bench.console import wide_console
from prism.cli.durations import read_seconds
from prism.errors import PrismError
from prism.models.synthetic import synthetic_inputs
from prism.plan import Plan
from prism.profiler import Settings
from prism.server.batching import Batcher
from prism.server.errors import Busy
from prism.server.metrics import Metrics
from prism.server.served import Served
from prism.server.work import Wish

LINK = "100mbit,3ms"
SPLIT = "seq:2:C10:f16"
LOADS = (0.3, 0.6, 0.9, 1.2, 1.6, 2.0)
WARM_UP = 3
Tell = Callable[[str], object]


@dataclass(frozen=True)
class Level:
    """What one policy did with one load.

    Attributes:
        policy: its name.
        load: offered rate over what one node can answer.
        offered_per_s, answered_per_s, good_per_s: requests that came, that were answered, and that
            were within the limit.
        p50_ms, p95_ms, p99_ms: latency of those answered; None where none was.
        refused, failed: requests that found the queue full, and that ended otherwise.
        mean_rows: of the batches that requests were part of.
        plans: how many requests each plan answered.
    """

    policy: str
    load: float
    offered_per_s: float
    answered_per_s: float
    good_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    refused: int
    failed: int
    mean_rows: float
    plans: dict[str, int]


def main() -> None:
    options = parse()
    console = wide_console()
    with (
        prism.local_cluster(nodes=2, threads=1, link=options.link) as cluster,
        console.status("loading") as status,
    ):
        levels, row_s = measure(cluster, options.model, options, status.update)
        hardware = cluster.facts("node0").hardware
    title = f"2 nodes on one {hardware}, a core each; emulated {options.link}"
    facts = {"hardware": hardware, "link": options.link, "emulated": True, "nodes": 2, "threads": 1}
    finish(console, levels, row_s, options, title, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--link", default=LINK, help=f"emulated (default: {LINK})")
    add_load_options(parser)
    return checked(parser, parser.parse_args())


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Add what every benchmark of load can be told."""
    parser.add_argument("--model", default="random:vit-base")
    parser.add_argument("--tokens", type=int, default=128, help="of a text")
    parser.add_argument("--loads", type=float, nargs="+", default=list(LOADS))
    parser.add_argument("--seconds", type=float, default=30.0, help="of arrivals at each load")
    parser.add_argument("--split", default=SPLIT, help="the plan of the policy split")
    parser.add_argument("--limit", type=float, default=4.0, help="of goodput, in rows' times")
    parser.add_argument("--budget", default="5m", help="time of the profile, such as 90s or 5m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")


def checked(parser: argparse.ArgumentParser, options: argparse.Namespace) -> argparse.Namespace:
    """Return options that can be used; end the program on others."""
    try:
        options.budget_s = read_seconds("--budget", options.budget)
        Plan.parse(options.split)
    except PrismError as error:
        parser.error(str(error))
    if min(*options.loads, options.seconds, options.limit) <= 0:
        parser.error("--loads, --seconds and --limit must be above 0")
    return options


def measure(
    cluster: prism.Cluster, source: str, options: argparse.Namespace, tell: Tell
) -> tuple[list[Level], float]:
    """Profile a model, then let the policies take turns at every load.

    Returns:
        What they did, and the seconds that one node takes for a row.
    """
    model = cluster.load(source)
    settings = Settings(segments=(10,), budget_s=options.budget_s)
    perf = profile(ProfiledModel(cluster, model), settings, tell)
    # Random weights have no accuracy to lose, so the lossy plan is allowed by name.
    others = (f"local@{name}" for name in cluster.nodes[1:])
    plans = list(dict.fromkeys(("local", *others, "batch:2", "seq:2:full", options.split)))
    model.use_map(perf, allow=plans)
    served = Served("model", model, model.info)
    inputs = synthetic_inputs(model.info, 1, min(options.tokens, model.info.shape.max_length))
    row_s = seconds_of_a_row(served, inputs)
    # The policies differ in the plan that their requests name; no name leaves it to the planner.
    first = cluster.nodes[0]
    policies = {"adaptive": None, "local": f"local@{first}", "split": options.split}
    limit_s, levels = options.limit * row_s, []
    for number, load in enumerate(options.loads):
        arrivals_s = poisson(load / row_s, options.seconds, options.seed + number)
        for policy, plan in policies.items():
            tell(f"load {load:g}: {policy}, {len(arrivals_s)} requests")
            answers = asyncio.run(offer(served, inputs, Wish(plan=plan), arrivals_s))
            levels.append(level_of(policy, load, limit_s, arrivals_s, answers))
    return levels, row_s


def seconds_of_a_row(served: Served, inputs: dict[str, torch.Tensor]) -> float:
    """Return the median time that the first node takes for one row."""
    seconds = []
    for number in range(WARM_UP + 5):
        started_s = time.perf_counter()
        served.model(plan="local", **inputs)
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - started_s)
    return statistics.median(seconds)


def poisson(per_s: float, seconds: float, seed: int) -> list[float]:
    """Return moments of independent arrivals at a rate; at least one."""
    source = random.Random(seed)
    moments_s = [source.expovariate(per_s)]
    while moments_s[-1] < seconds:
        moments_s.append(moments_s[-1] + source.expovariate(per_s))
    return moments_s


@dataclass(frozen=True)
class Ended:
    """How one request ended; `plan` is empty unless it was answered."""

    latency_s: float
    plan: str = ""
    rows: int = 0
    refused: bool = False


async def offer(
    served: Served, inputs: dict[str, torch.Tensor], wish: Wish, arrivals_s: Sequence[float]
) -> tuple[list[Ended], float]:
    """Send requests at their moments, and wait for all; return them, and the seconds it took."""
    batcher = Batcher(served, Metrics())
    begun_s = time.monotonic()

    async def ask(arrival_s: float) -> Ended:
        # The clock starts at the moment it should have come: a late sender hides no waiting.
        await asyncio.sleep(max(0.0, begun_s + arrival_s - time.monotonic()))
        try:
            answered = await batcher.infer(inputs, wish)
        except (Busy, PrismError) as error:
            took_s = time.monotonic() - begun_s - arrival_s
            return Ended(took_s, refused=isinstance(error, Busy))
        took_s = time.monotonic() - begun_s - arrival_s
        return Ended(took_s, answered.record.plan.shape, answered.rows)

    ended = await asyncio.gather(*map(ask, arrivals_s))
    elapsed_s = time.monotonic() - begun_s
    await batcher.drain(60.0)
    return ended, elapsed_s


def level_of(
    policy: str,
    load: float,
    limit_s: float,
    arrivals_s: Sequence[float],
    answers: tuple[list[Ended], float],
) -> Level:
    """Return the figures of one policy at one load."""
    ended, elapsed_s = answers
    good = [each for each in ended if each.plan]
    latencies_s = sorted(each.latency_s for each in good)
    plans: dict[str, int] = {}
    for each in good:
        plans[each.plan] = plans.get(each.plan, 0) + 1
    refused = sum(each.refused for each in ended)
    return Level(
        policy=policy,
        load=load,
        offered_per_s=len(arrivals_s) / arrivals_s[-1],
        answered_per_s=len(good) / elapsed_s,
        good_per_s=sum(each <= limit_s for each in latencies_s) / elapsed_s,
        p50_ms=percentile_ms(latencies_s, 0.50),
        p95_ms=percentile_ms(latencies_s, 0.95),
        p99_ms=percentile_ms(latencies_s, 0.99),
        refused=refused,
        failed=len(ended) - len(good) - refused,
        mean_rows=statistics.mean(each.rows for each in good) if good else 0.0,
        plans=plans,
    )


def percentile_ms(sorted_s: Sequence[float], part: float) -> float | None:
    """Return a percentile by the nearest rank; None of nothing."""
    if not sorted_s:
        return None
    rank = max(1, -int(-part * len(sorted_s) // 1))
    return 1e3 * sorted_s[rank - 1]


def finish(
    console: Console,
    levels: list[Level],
    row_s: float,
    options: argparse.Namespace,
    title: str,
    facts: dict[str, Any],
) -> None:
    """Print the table, then the JSON line."""
    if not options.json:
        show(console, levels, f"{title}; one node takes {1e3 * row_s:.0f} ms for a row")
    figures = {
        "bench": "load",
        "torch": torch.__version__,
        "model": options.model,
        **facts,
        "row_ms": 1e3 * row_s,
        "limit_ms": 1e3 * row_s * options.limit,
        "seconds": options.seconds,
        "seed": options.seed,
        "levels": [asdict(level) for level in levels],
    }
    print(json.dumps(figures))


def show(console: Console, levels: list[Level], title: str) -> None:
    table = Table("load", "policy", title=title)
    for column in ("offered/s", "answered/s", "good/s", "p50 ms", "p95 ms", "p99 ms", "rows"):
        table.add_column(column, justify="right")
    table.add_column("no answer", justify="right")
    table.add_column("plans")
    for level in levels:
        rates = (level.offered_per_s, level.answered_per_s, level.good_per_s)
        times = (level.p50_ms, level.p95_ms, level.p99_ms)
        table.add_row(
            f"{level.load:g}",
            level.policy,
            *(f"{each:.2f}" for each in rates),
            *("-" if each is None else f"{each:.0f}" for each in times),
            f"{level.mean_rows:.1f}",
            str(level.refused + level.failed),
            ", ".join(f"{plan} {count}" for plan, count in level.plans.items()),
        )
    console.print(table)


if __name__ == "__main__":
    main()
