"""What prism adds to a request that one node answers alone.

    python bench/overhead.py [--model digits random:vit-base] [--requests 300] [--json]

A request of one image goes to the first of two nodes under `local`. Its overhead is its wall time,
as the caller sees it, minus the time the node spent in the model (`compute_s` of the record). Time
that is booked as computing but is prism's would hide there, so plain transformers answer the same
request in turn, on the same core: the medians' difference says the same without the record. Prints
a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import prism
from prism.bench.console import wide_console
from prism.bench.plain import plain_forward
from prism.models.synthetic import synthetic_inputs
from prism.profiler.turns import take_turns

PRISM, PLAIN = "prism", "plain transformers"
WARM_UP = 10  # requests of each


def main() -> None:
    options = parse()
    console = Console(stderr=True)
    with prism.local_cluster(nodes=2, threads=1) as cluster:
        hardware = cluster.facts("node0").hardware
        rows = []
        for source in options.model:
            with console.status(f"{source}: {options.requests} requests"):
                rows.append(measure(cluster, source, options.requests))
    if not options.json:
        show(rows, hardware)
    print(json.dumps(report(rows, options, hardware)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", default=["digits", "random:vit-base"])
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    if options.requests < 2:
        parser.error(f"--requests must be at least 2, for quartiles, not {options.requests}")
    return options


def measure(cluster: prism.Cluster, source: str, requests: int) -> dict[str, Any]:
    model = cluster.load(source)
    # The core of node0, which waits meanwhile.
    plain = plain_forward(source, core=min(os.sched_getaffinity(0)))
    inputs = synthetic_inputs(model.info, 1, model.info.shape.max_length)
    seconds: dict[str, list[float]] = {PRISM: [], PLAIN: []}
    compute_s = []
    for number, order in enumerate(take_turns(list(seconds), WARM_UP + requests)):
        for name in order:
            started_s = time.perf_counter()
            if name == PRISM:
                model(plan="local", **inputs)
            else:
                plain(inputs)
            took_s = time.perf_counter() - started_s
            if number < WARM_UP:
                continue
            seconds[name].append(took_s)
            if name == PRISM:
                assert model.last_record is not None and model.last_record.outcome == "ok"
                compute_s.append(model.last_record.compute_s)
    overhead_s = [total - compute for total, compute in zip(seconds[PRISM], compute_s, strict=True)]
    against_plain_s = statistics.median(seconds[PRISM]) - statistics.median(seconds[PLAIN])
    return {
        "model": source,
        "total_ms": quartiles_ms(seconds[PRISM]),
        "compute_ms": quartiles_ms(compute_s),
        "plain_ms": quartiles_ms(seconds[PLAIN]),
        "overhead_ms": quartiles_ms(overhead_s),
        "against_plain_ms": round(1e3 * against_plain_s, 3),
    }


def quartiles_ms(seconds: list[float]) -> list[float]:
    """Return the quartiles, the median in the middle."""
    return [
        round(1e3 * value, 3) for value in statistics.quantiles(seconds, n=4, method="inclusive")
    ]


def show(rows: list[dict[str, Any]], hardware: str) -> None:
    table = Table(title=f"1 image, local, one of 2 nodes on one {hardware}; ms (quartiles)")
    table.add_column("model", no_wrap=True)
    for column in ("request", "in the model", "overhead", PLAIN, "request - plain"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [row[f"{part}_ms"] for part in ("total", "compute", "overhead", "plain")]
        table.add_row(
            row["model"],
            *(f"{median:.2f} ({low:.2f}-{high:.2f})" for low, median, high in cells),
            f"{row['against_plain_ms']:.2f}",
        )
    wide_console(150).print(table)


def report(
    rows: list[dict[str, Any]], options: argparse.Namespace, hardware: str
) -> dict[str, Any]:
    return {
        "bench": "overhead",
        "requests": options.requests,
        "nodes": 2,
        "threads": 1,
        "hardware": hardware,
        "torch": torch.__version__,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
