"""What choosing groups and averaging costs, as a share of a block's time, on this machine.

    python bench/grouping.py [--model random:vit-base] [--batch 1 8] [--means 10] [--rounds 60]

One partition of a two-node plan, one thread: before every block a node chooses its groups and
averages them (`C`), or only averages (`L`). Both take turns with a real block of the model on the
same rows; shares are medians of the ratios within a turn, with their quartiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from prism.engine.view import PartitionView
from prism.models.load import load
from prism.models.sites import sites_of
from prism.plan import Plan
from prism.profiler.turns import take_turns


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    loaded = load(options.model)
    shape = loaded.info.shape
    site = sites_of(loaded.info.family, loaded.model)[1]
    length = options.length or shape.max_length
    rows = []
    with torch.inference_mode():
        for batch in options.batch:
            rows += measure(site, shape.hidden, length, batch, options.means, options.rounds)
    show(rows, length)
    print(
        json.dumps({"model": options.model, "length": length, "means": options.means, "rows": rows})
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--model", default="random:vit-base", help="a model with a plain block call"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--length", type=int, help="positions (default: all the model takes)")
    parser.add_argument("--means", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=60)
    return parser.parse_args()


def measure(
    site: Any, width: int, length: int, batch: int, means: int, rounds: int
) -> list[dict[str, Any]]:
    """Return what each kind of means costs beside a block on the same rows."""
    generator = torch.Generator().manual_seed(0)
    contenders: dict[str, Callable[[], object]] = {}
    for name in (f"L{means}", f"C{means}"):
        plan = Plan.parse(f"seq:2:{name}:f16")
        view = PartitionView(
            plan, 0, length, causal=False, real_BN=None, device=torch.device("cpu")
        )
        hidden = torch.randn(batch, view.own.size, width, generator=generator)
        contenders[name] = averaging(view, site, hidden)
    contenders["block"] = lambda: site.block(hidden)
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for order in take_turns(list(contenders), rounds):
        for name in order:
            started_s = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - started_s)
    return [
        {
            "batch": batch,
            "rows": hidden.shape[1],
            "means": name,
            "ms": round(1e3 * statistics.median(seconds[name]), 3),
            "block_ms": round(1e3 * statistics.median(seconds["block"]), 3),
            "share_percent": quartiles(
                [
                    100 * own / whole
                    for own, whole in zip(seconds[name], seconds["block"], strict=True)
                ]
            ),
        }
        for name in seconds
        if name != "block"
    ]


def averaging(view: PartitionView, site: Any, hidden: torch.Tensor) -> Callable[[], object]:
    """Return what a node does before a block, from its input to the payload."""

    def run() -> torch.Tensor:
        rows = site.norm.standardise(hidden) if view.clusters else hidden
        return view.payload(rows, view.groups(rows))

    return run


def quartiles(values: list[float]) -> list[float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return [round(value, 2) for value in (low, middle, high)]


def show(rows: list[dict[str, Any]], length: int) -> None:
    table = Table(title=f"Groups and means before a block, {length} positions on two nodes")
    for heading in ("batch", "rows", "means", "ms", "block ms", "share % (quartiles)"):
        table.add_column(heading, justify="right")
    for row in rows:
        low, middle, high = row["share_percent"]
        cells = (row["batch"], row["rows"], row["means"], row["ms"], row["block_ms"])
        table.add_row(*map(str, cells), f"{middle} ({low}-{high})")
    Console().print(table)


if __name__ == "__main__":
    main()
