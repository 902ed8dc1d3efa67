"""Do requests for different nodes run at the same time? Two nodes under load against one.

    python bench/throughput.py [--model random:vit-base] [--requests 300] [--json]

Three threads submit `local@node0`, `local@node1` and `batch:2` mixed. Before and after, the same
requests are answered by node0 alone, submitted by as many threads, so that it never waits for one.
How busy a node was is the processor time of its process over the wall time. Every answer is
compared with plain transformers'; exits 1 if one is wrong. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import prism
from prism.bench.plain import plain_forward

THREADS = 3
MIXED = ("local@node0", "local@node1", "batch:2")
ALONE = ("local@node0",)
ROWS = 2  # of a request, so that batch:2 can split it
DIFFERENT = 16  # requests that differ
ATOL = 1e-4
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """One request and its answer."""

    pixels: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True)
class Run:
    """What one load of requests gave."""

    wall_s: float
    busy: dict[str, float]
    wrong: int


def main() -> None:
    options = parse()
    progress = Console(stderr=True)
    with prism.local_cluster(nodes=2, threads=1) as cluster, progress.status("loading") as status:
        model = cluster.load(options.model)
        cases = make_cases(model, options.model)
        load(cluster, model, cases, (*MIXED, *ALONE), 2 * len(MIXED))  # warm-up
        status.update(f"{options.requests} requests: one node")
        before = load(cluster, model, cases, ALONE, options.requests)
        status.update(f"{options.requests} requests: mixed")
        mixed = load(cluster, model, cases, MIXED, options.requests)
        status.update(f"{options.requests} requests: one node again")
        after = load(cluster, model, cases, ALONE, options.requests)
        hardware = cluster.facts("node0").hardware
    runs = {"node0 alone": before, "mixed": mixed, "node0 alone, again": after}
    ratio = statistics.mean((before.wall_s, after.wall_s)) / mixed.wall_s
    if not options.json:
        show(runs, options.requests, ratio, hardware)
    print(json.dumps(report(runs, options, ratio, hardware)))
    sys.exit(any(run.wrong for run in runs.values()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="random:vit-base", help="one that classifies images")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    if options.requests < 1:
        parser.error(f"--requests must be at least 1, not {options.requests}")
    return options


def make_cases(model: prism.DistributedModel, source: str) -> list[Case]:
    plain = plain_forward(source)
    config, generator = model.info.config, torch.Generator().manual_seed(0)
    shape = (ROWS, config.num_channels, config.image_size, config.image_size)
    cases = []
    for _ in range(DIFFERENT):
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        cases.append(Case(pixels, plain({"pixel_values": pixels}).logits))
    return cases


def load(
    cluster: prism.Cluster,
    model: prism.DistributedModel,
    cases: list[Case],
    plans: tuple[str, ...],
    requests: int,
) -> Run:
    """Have all requests answered under the plans in turn, from several threads."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(requests):
        waiting.put(number)

    def work() -> int:
        """Submit what nobody has submitted yet; return how many answers were wrong."""
        wrong = 0
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return wrong
            case = cases[number % len(cases)]
            output = model(plan=plans[number % len(plans)], pixel_values=case.pixels)
            wrong += not torch.allclose(output.logits, case.logits, atol=ATOL)

    before_s = {name: processor_s(cluster.pid(name)) for name in cluster.nodes}
    started_s = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        workers = [pool.submit(work) for _ in range(THREADS)]
        wrong = sum(worker.result() for worker in workers)
    wall_s = time.perf_counter() - started_s
    busy = {
        name: (processor_s(cluster.pid(name)) - spent_s) / wall_s
        for name, spent_s in before_s.items()
    }
    return Run(wall_s, busy, wrong)


def processor_s(pid: int) -> float:
    """Return the processor time a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def show(runs: dict[str, Run], requests: int, ratio: float, hardware: str) -> None:
    table = Table(title=f"{requests} requests of {ROWS} images, {THREADS} threads, on {hardware}")
    table.add_column("nodes", no_wrap=True)
    for column in ("s", "images/s", "node0 busy", "node1 busy", "wrong"):
        table.add_column(column, justify="right")
    for name, run in runs.items():
        table.add_row(
            name,
            f"{run.wall_s:.1f}",
            f"{requests * ROWS / run.wall_s:.2f}",
            *(f"{run.busy[node]:.0%}" for node in ("node0", "node1")),
            str(run.wrong),
        )
    Console().print(table)
    print(f"mixed against one node: {ratio:.2f}x the throughput; ideal 2")


def report(
    runs: dict[str, Run], options: argparse.Namespace, ratio: float, hardware: str
) -> dict[str, Any]:
    return {
        "bench": "throughput",
        "model": options.model,
        "requests": options.requests,
        "rows": ROWS,
        "submitting_threads": THREADS,
        "plans": list(MIXED),
        "nodes": 2,
        "threads": 1,
        "hardware": hardware,
        "torch": torch.__version__,
        "ideal_ratio": 2.0,
        "ratio": round(ratio, 3),
        "runs": {
            name: {"wall_s": round(run.wall_s, 3), "busy": run.busy, "wrong": run.wrong}
            for name, run in runs.items()
        },
    }


if __name__ == "__main__":
    main()
