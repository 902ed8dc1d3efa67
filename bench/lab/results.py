"""Rows, tables and the circumstances of what was measured over a lab."""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from bench.lab.contenders import LOCAL, PLAIN, Contenders
from bench.lab.lab import Lab
from rich.table import Table

import prism
from prism.bench.console import wide_console
from prism.bench.contenders import PARTS, Alternation, median_part_ms, quartiles


def rows_of(
    contenders: Contenders, done: Alternation, batch: int, length: int
) -> list[dict[str, Any]]:
    """Return a row for every contender: times, speed-ups, the share of its bound, and the parts."""
    rows = []
    for name in contenders.runs:
        records, bound = done.records[name], contenders.bounds.get(name)
        rows.append(
            {
                "length": length,
                "batch": batch,
                "contender": name,
                "total_ms": [round(1e3 * value, 2) for value in quartiles(done.seconds[name])],
                "on_local": _rounded(done.speedup(name, LOCAL)),
                "on_plain": _rounded(done.speedup(name, PLAIN)),
                "bound": bound and bound.name,
                # The bound's time in this plan's time: 1 where nothing but computing is left.
                "of_bound": bound and _rounded(done.speedup(name, bound.name)),
                "parts_ms": {part: done.part_ms(name, part) for part in PARTS} if records else None,
                "helpers_ms": _helpers_ms(done, name),
                "bytes_sent": records[-1].bytes_sent if records else None,
                "messages": records[-1].messages if records else None,
                "outcomes": sorted({record.outcome for record in records}),
            }
        )
    return rows


def _helpers_ms(done: Alternation, name: str) -> dict[str, dict[str, float | None]]:
    """Return the median parts of the other nodes' records, by node."""
    records = done.records[name]
    helpers = sorted({node for record in records for node in record.per_node})
    parts = {}
    for node in helpers:
        own = [record.per_node[node] for record in records if node in record.per_node]
        parts[node] = {part: median_part_ms(own, part) for part in PARTS}
    return parts


def facts_of(lab: Lab, cluster: prism.Cluster, options: argparse.Namespace) -> dict[str, Any]:
    """Return under which circumstances something was measured, as plain data."""
    node = cluster.facts(lab.boards[0].name)
    carried = lab.carried
    words = ["python", "-m", _module(), *sys.argv[1:]]
    return {
        "command": shlex.join(words),
        "model": options.model,
        "rounds": options.rounds,
        "link": str(lab.link),
        "carried_by": lab.kind,
        "offload": None if carried is None else carried.offload,
        "dropped": None if carried is None else carried.dropped,
        "late_us": (
            None if carried is None else round(1e6 * carried.late_s / max(1, carried.packets), 1)
        ),
        "boards": [
            {"name": board.name, "cores": list(board.cores), "cpu": board.cpu}
            for board in lab.boards
        ],
        "hardware": node.hardware,
        "python": platform.python_version(),
        "prism": prism.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def show(figures: Mapping[str, Any]) -> None:
    """Print the rows of a comparison as a table."""
    boards, first = figures["boards"], figures["boards"][0]
    share = "" if first["cpu"] is None else f", {first['cpu']:g} of a core each"
    title = (
        f"{figures['model']}, {len(boards)} boards on one {figures['hardware']}{share}; "
        f"{figures['link']}, carried by {figures['carried_by']}; medians (quartiles), ms"
    )
    table = Table(title=title)
    rows = figures["rows"]
    used = [part for part in PARTS if any((row["parts_ms"] or {}).get(part) for row in rows)]
    for column in ("N", "B", "contender"):
        table.add_column(column, justify="right" if len(column) == 1 else "left", no_wrap=True)
    for column in ("total", "on local", "on plain", "of its bound", *used):
        table.add_column(column, justify="right", no_wrap=True)
    before = None
    for row in rows:
        size = (row["length"], row["batch"])
        if before not in (None, size):
            table.add_section()
        before = size
        parts = row["parts_ms"] or {}
        table.add_row(
            *map(str, size),
            row["contender"],
            _with_quartiles(row["total_ms"], 1),
            _with_quartiles(row["on_local"], 3),
            f"{row['on_plain'][1]:.3f}",
            f"{row['of_bound'][1]:.3f}" if row["of_bound"] else "",
            *("" if parts.get(part) is None else f"{parts[part]:.1f}" for part in used),
        )
    wide_console().print(table)


def _with_quartiles(values: list[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low}-{high})"


def _rounded(values: tuple[float, float, float]) -> list[float]:
    return [round(value, 4) for value in values]


def _module() -> str:
    """Return the name of the program, as Python was told to run it."""
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec is not None else "bench.lab.forward"
