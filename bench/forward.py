"""What each plan costs on two nodes of this machine, beside one node and plain transformers.

    python bench/forward.py [--model random:vit-base] [--link 100mbit,3ms] [--rounds 15]

Contenders take turns within each round, so that whatever else the machine does hits all of them
alike; speed-ups are medians of the ratios within a round, with their quartiles. The link is
emulated, the nodes are real processes with one core each. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import prism
from prism.api.model import DistributedModel
from prism.bench.console import wide_console
from prism.bench.contenders import PARTS, Alternation, Run, alternate, quartiles, requests
from prism.bench.plain import plain_forward
from prism.models.synthetic import synthetic_inputs

PLANS = (
    *("local", "batch:2", "seq:2:full"),
    *("seq:2:C10:f16", "seq:2:L10:f16", "seq:2:C10:lag1:f16", "seq:2:L10:lag1:f16"),
)
PLAIN = "plain transformers"


def main() -> None:
    options = parse()
    console = wide_console(150)
    rows = []
    # The plain run shares node0's core: the two never run at the same time.
    core = min(os.sched_getaffinity(0))
    with prism.local_cluster(nodes=2, threads=1, link=options.link) as cluster:
        hardware = cluster.facts("node0").hardware
        model = cluster.load(options.model)
        plain = plain_forward(options.model, core)
        for batch in options.batch:
            rows += measure(model, plain, batch, options.rounds, console)
    show(console, rows, options.link, hardware)
    print(json.dumps(report(rows, options, hardware)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="random:vit-base")
    parser.add_argument("--link", default="100mbit,3ms")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


def measure(
    model: DistributedModel,
    plain: Callable[[Mapping[str, Any]], Any],
    batch: int,
    rounds: int,
    console: Console,
) -> list[dict[str, Any]]:
    inputs = synthetic_inputs(model.info, batch, model.info.shape.max_length)
    plans = [plan for plan in PLANS if batch > 1 or not plan.startswith("batch")]

    def plainly() -> None:
        plain(inputs)

    contenders: dict[str, Run] = {
        PLAIN: plainly,
        **{plan: requests(model, plan, inputs) for plan in plans},
    }
    with console.status("") as status:
        done = alternate(
            contenders,
            rounds,
            lambda number: status.update(f"batch {batch}: round {number} of {rounds}"),
        )
    return [row(name, batch, done) for name in contenders]


def row(name: str, batch: int, done: Alternation) -> dict[str, Any]:
    records = done.records[name]
    return {
        "contender": name,
        "batch": batch,
        "total_ms": [round(1e3 * value, 1) for value in quartiles(done.seconds[name])],
        "speedup": [round(value, 3) for value in done.speedup(name, "local")],
        **{f"{part}_ms": done.part_ms(name, part) for part in PARTS},
        "bytes_sent": records[-1].bytes_sent if records else None,
        "messages": records[-1].messages if records else None,
    }


def show(console: Console, rows: list[dict[str, Any]], link: str, hardware: str) -> None:
    title = f"2 nodes on one {hardware}, a core each; emulated link {link}; ideal speed-up 2"
    table = Table(title=title)
    for column in ("B", "contender", "total ms (quartiles)", "speed-up on local (quartiles)"):
        justify = "left" if column == "contender" else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for column in (*PARTS, "bytes sent"):
        table.add_column(column, justify="right")
    for each in rows:
        total, ratio = each["total_ms"], each["speedup"]
        parts = [each[f"{part}_ms"] for part in PARTS]
        table.add_row(
            str(each["batch"]),
            each["contender"],
            f"{total[1]:.1f} ({total[0]:.1f}-{total[2]:.1f})",
            f"{ratio[1]:.2f} ({ratio[0]:.2f}-{ratio[2]:.2f})",
            *("" if part is None else f"{part:.1f}" for part in parts),
            "" if each["bytes_sent"] is None else f"{each['bytes_sent']:,}",
        )
    console.print(table)


def report(
    rows: list[dict[str, Any]], options: argparse.Namespace, hardware: str
) -> dict[str, Any]:
    return {
        "bench": "forward",
        "model": options.model,
        "link": options.link,
        "emulated": True,
        "nodes": 2,
        "threads": 1,
        "hardware": hardware,
        "rounds": options.rounds,
        "torch": torch.__version__,
        "ideal_speedup": 2.0,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
