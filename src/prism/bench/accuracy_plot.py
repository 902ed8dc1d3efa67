"""A figure for people: what plans lose, over what they put on the link."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism.bench.plots import check_target, save_figure
from prism.plan import ModelShape, Plan
from prism.planner.traffic import bytes_per_block

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from prism.perfmap import Accuracy
    from prism.perfmap.schema import AccuracyMetric

# Told apart by colour-blind readers too (Okabe and Ito), and by shape.
_COLOURS = {"full": "black", "segments": "#D55E00", "clusters": "#0072B2"}
_WORDS = {"full": "every row", "segments": "Segment Means", "clusters": "Cluster Means"}
_MARKERS = "os^Dv*"
_TITLE_WIDTH = 90
_MOST_LABELS = 24
_ASIDE = 1.02  # between two series, so that equal bytes do not hide each other's intervals
_LOST = {
    "accuracy": "accuracy lost",
    "agreement": "answers that are not the exact ones",
    "embedding": "1 - mean cosine with the exact embedding",
    "language": "next tokens that are not the exact ones",
}


@dataclass(frozen=True, slots=True)
class DropPoint:
    """What one plan loses, and its bytes per sample and block on the busiest link."""

    plan: Plan
    exchanged_bytes: int
    drop: float
    low: float
    high: float


def drop_points(entries: Sequence[Accuracy], shape: ModelShape, length: int) -> list[DropPoint]:
    """Return what to draw: the plans that exchange something."""
    points = []
    for entry in entries:
        plan = Plan.parse(entry.plan)
        if plan.exchanges:
            low = entry.drop if entry.drop_low is None else entry.drop_low
            high = entry.drop if entry.drop_high is None else entry.drop_high
            nbytes = bytes_per_block(plan, shape, length)
            points.append(DropPoint(plan, nbytes, entry.drop, low, high))
    return points


def draw_drops(path: Path, points: Sequence[DropPoint], metric: AccuracyMetric, title: str) -> None:
    """Draw what plans lose over the bytes they exchange; plans that differ in bytes are joined.

    Args:
        path: to write; the suffix says the format.
        points: one per plan.
        metric: how the drop was measured.
        title: what was measured on what.

    Raises:
        ConfigError: as `check_target`, or the file cannot be written.
    """
    check_target(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    axes = figure.add_subplot()
    series: dict[tuple[int, str, int, str, str], list[DropPoint]] = {}
    for point in points:
        plan = point.plan
        way = "full" if plan.means is None else plan.grouping
        series.setdefault((plan.size, way, plan.lag, plan.wire, plan.precision), []).append(point)
    sizes = sorted({size for size, *_ in series})
    for index, ((size, group, lag, wire, precision), members) in enumerate(sorted(series.items())):
        style = {
            "marker": _MARKERS[sizes.index(size) % len(_MARKERS)],
            "color": _COLOURS[group],
            "linestyle": "--" if lag else "-",
            "markerfacecolor": "white" if lag else _COLOURS[group],
            "label": f"{size} nodes, {_WORDS[group]}{', lag' if lag else ''}, {wire}"
            + f", computed in {precision}" * (precision != "float32"),
        }
        _draw_series(axes, members, _ASIDE**index, style)
    _set_axes(axes, points, _LOST[metric])
    axes.set_title(textwrap.fill(title, _TITLE_WIDTH), loc="left", fontsize=10, pad=12)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=3.0)
    save_figure(figure, path)


def _draw_series(
    axes: Axes, members: Sequence[DropPoint], aside: float, style: Mapping[str, Any]
) -> None:
    ordered = sorted(members, key=lambda point: point.exchanged_bytes)
    at = [point.exchanged_bytes * aside for point in ordered]
    drops = [100 * point.drop for point in ordered]
    below = [100 * max(0.0, point.drop - point.low) for point in ordered]
    above = [100 * max(0.0, point.high - point.drop) for point in ordered]
    axes.errorbar(at, drops, yerr=[below, above], capsize=3, elinewidth=0.8, **style)


def _set_axes(axes: Axes, points: Sequence[DropPoint], lost: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bytes per sample and block that the busiest node receives")
    axes.set_ylabel(f"{lost} (points, with 95 % interval)")
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.grid(True, which="major", color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(points) <= _MOST_LABELS:
        for point in points:
            axes.annotate(
                str(point.plan).split(":", 2)[2],
                (point.exchanged_bytes, 100 * point.drop),
                xytext=(5, 5),
                textcoords="offset points",
                fontsize=7,
                color="0.35",
            )
