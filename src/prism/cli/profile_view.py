"""How a profile looks: its progress, what was measured, and what was left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from prism.cli import output
from prism.cli.durations import tell_seconds
from prism.cli.ticker import LINE_EVERY_S, Ticker, on_terminal

if TYPE_CHECKING:
    from prism.perfmap import LeftOutPoint, PerformanceMap
    from prism.profiler import Progress

_PAPER_PASSES = 2880
# What a point left out would have taken: warmed up once, run twice.
_LEAST_PASSES = 3
_ROOM = 1.25
_PLANS_TOLD = 6


@contextmanager
def shown_progress(every_s: float = LINE_EVERY_S) -> Iterator[Callable[[Progress], None]]:
    """Show progress on stderr: a bar on a terminal, else a line every few seconds.

    Args:
        every_s: seconds between two lines, during one long pass too.
    """
    if not on_terminal():
        now = _Now()
        with Ticker(now.line, every_s):
            yield now.take
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("profile")
        yield lambda progress: bar.update(
            task,
            total=progress.total,
            completed=progress.done,
            description=f"{progress.doing}{_left(progress)}",
        )


class _Now:
    """What is measured now, and since when."""

    def __init__(self) -> None:
        self._state: tuple[Progress | None, float] = None, time.monotonic()

    def take(self, progress: Progress) -> None:
        """Note what begins now."""
        self._state = progress, time.monotonic()

    def line(self) -> str:
        """Return how far the profile is, in one line."""
        progress, since_s = self._state
        running = f" for {time.monotonic() - since_s:.0f} s"
        if progress is None:
            return f"profile: preparing{running}"
        return (
            f"profile: {progress.done} of {progress.total} passes{_left(progress)}; "
            f"now {progress.doing}{running}"
        )


def _left(progress: Progress) -> str:
    return "" if progress.left_s is None else f", {progress.left_s:.0f} s left"


def summary(perf: PerformanceMap, out: Path) -> dict[str, Any]:
    """Return a finished profile as plain JSON types."""
    return {
        "map": str(out),
        "passes": perf.passes,
        "paper_passes": _PAPER_PASSES,
        "seconds": perf.seconds_spent,
        "budget_s": perf.budget_s,
        "link": {
            "bandwidth_bps": perf.link.bandwidth_bps,
            "latency_s": perf.link.latency_s,
            "fixed_s": perf.link.fixed_s,
            "shared": perf.link.shared,
        },
        "energy": perf.energy_scope or None,
        "held_out_errors": [each.error for each in perf.held_out],
        "measurements": [entry.to_dict() for entry in perf.measurements],
        "left_out": [asdict(point) for point in perf.left_out],
    }


def show(perf: PerformanceMap, out: Path) -> None:
    """Print a finished profile."""
    _print_table(perf)
    link = perf.link
    if len(perf.nodes) > 1:
        shape = "one medium for all" if link.shared else "a port each"
        print(
            f"link: {link.bandwidth_bps / 1e6:.1f} Mbit/s, {1e3 * (link.latency_s or 0):.2f} ms "
            f"one way, {shape}; an empty exchange takes {1e3 * link.fixed_s:.2f} ms"
        )
    print(f"energy: {perf.energy_scope or 'nobody measured'}")
    batches, lengths = (
        ", ".join(map(str, sorted({getattr(entry, name) for entry in perf.measurements})))
        for name in ("batch", "length")
    )
    print(f"{len(perf.measurements)} points measured: batch {batches}; length {lengths}")
    for line in left_out_lines(perf):
        print(line)
    if perf.held_out:
        typical = median(abs(each.error) for each in perf.held_out)
        print(f"prediction error at {len(perf.held_out)} held-out points: median {typical:.1%}")
    print(
        f"{perf.passes} forward passes in {perf.seconds_spent:.0f} s "
        f"(the paper's sweep: {_PAPER_PASSES}); wrote {out}"
    )


def left_out_lines(perf: PerformanceMap) -> list[str]:
    """Return what the budget left out, and how to measure it; nothing if all was measured."""
    if not perf.left_out or perf.budget_s is None:
        return []
    known = [point for point in perf.left_out if point.predicted_s is not None]
    unknown = [point for point in perf.left_out if point.predicted_s is None]
    lines = [
        f"{len(perf.left_out)} more points did not fit into the budget of "
        f"{tell_seconds(perf.budget_s)}"
    ]
    if known:
        lines.append(f"  predicted from those measured: {_listed(known)}")
    if unknown:
        lines.append(f"  plans that never ran, and cannot be chosen: {_plans(unknown)}")
    more_s = sum(_LEAST_PASSES * (point.expected_s or 0.0) for point in perf.left_out)
    enough_s = _ROOM * (max(perf.budget_s, perf.seconds_spent) + more_s)
    lines.append(f"  --budget {tell_seconds(enough_s)} would measure them too")
    return lines


def _plans(points: Iterable[LeftOutPoint]) -> str:
    return ", ".join(dict.fromkeys(point.plan for point in points))


def _listed(points: Sequence[LeftOutPoint]) -> str:
    """Return the points by plan, batch by length: `seq:2:full at 4x197, 16x197`."""
    sizes: dict[str, list[str]] = {}
    for point in points:
        sizes.setdefault(point.plan, []).append(f"{point.batch}x{point.length}")
    told = [f"{plan} at {', '.join(each)}" for plan, each in sizes.items()]
    if len(told) > _PLANS_TOLD:
        told[_PLANS_TOLD:] = [f"{len(told) - _PLANS_TOLD} more plans, all named in the map"]
    return "; ".join(told)


def _print_table(perf: PerformanceMap) -> None:
    from rich.table import Table

    table = Table(title=f"median ms per request, {', '.join(node.name for node in perf.nodes)}")
    for column in ("plan", "B", "length", "total", "compute", "staging", "comm", "input", "output"):
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=True)
    for entry in perf.measurements:
        parts = (entry.compute_s, entry.staging_s, entry.comm_s, entry.input_s, entry.output_s)
        spread = 0.0 if entry.total_s.spread is None else entry.total_s.spread
        table.add_row(
            entry.plan,
            str(entry.batch),
            str(entry.length),
            f"{1e3 * entry.total_s.median:.1f} ± {1e3 * spread / 2:.1f}",
            *(f"{1e3 * part.median:.1f}" for part in parts),
        )
    output.print_table(table)
