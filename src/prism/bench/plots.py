"""Figures for people: predicted latency of the plans over bandwidth or batch size.

Owns how a sweep looks on paper; what it contains was computed before. matplotlib is an extra and
is imported only to draw. Figures are made without pyplot, so no display and no global state.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from prism.errors import ConfigError, PlanError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from prism.planner import Candidate, CostModel, Sweep
    from prism.record import LinkState

SUFFIXES = (".png", ".svg", ".pdf")
# Told apart by colour-blind readers too (Okabe and Ito); black is local's.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_ENVELOPE = "#F0C419"
_MOST_LABELS = 6
_TITLE_WIDTH = 110
_LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Curve:
    """Predicted seconds of one plan over the axis of a sweep.

    `allowed` tells whether the plan could be chosen; those that could not are drawn dashed.
    """

    plan: str
    points: tuple[tuple[float, float], ...]
    allowed: bool = True


def check_target(path: Path) -> None:
    """Refuse, before any work, a file that could not be drawn.

    Raises:
        ConfigError: matplotlib is missing, the suffix is unknown, or the folder does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"cannot draw {path}: its name must end in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot draw {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ConfigError(f"cannot draw {path}: it is a folder; name a file")
    if not _has_matplotlib():
        raise ConfigError("plots need matplotlib: pip install 'prism-edge[plots]'")


def trace(
    model: CostModel,
    sweep: Sweep,
    candidates: Sequence[Candidate],
    place: Callable[[float], tuple[int, int, LinkState]],
) -> list[Curve]:
    """Return what plans cost along a sweep: those ever chosen, then the first candidates.

    Splits solved for one place have no curve, since another place has its own.

    Args:
        model: predicts.
        sweep: the places.
        candidates: plans to draw, the most interesting first; as many as can be told apart.
        place: gives batch, length and link for a place on the sweep's axis.
    """
    chosen = {_LOCAL, *(point.choice for point in sweep.points)}
    # Rows are shared out anew at every place; positions as they were measured.
    lasting = [each for each in candidates if each.plan.least_batch == 1 or not each.plan.shares]
    order = sorted(lasting, key=lambda candidate: str(candidate.plan) not in chosen)
    curves = []
    for candidate in order[: 1 + len(_COLOURS)]:
        points = []
        for point in sweep.points:
            with suppress(PlanError):  # a batch too small for the plan
                cost = model.predict(candidate.plan, *place(point.at))
                points.append((point.at, cost.total_s))
        curves.append(Curve(str(candidate.plan), tuple(points), candidate.allowed))
    return curves


def draw_sweep(path: Path, sweep: Sweep, curves: Sequence[Curve], title: str) -> None:
    """Draw the plans of a sweep, the chosen ones emphasised, and where the choice changes.

    Args:
        path: to write; the suffix says the format.
        sweep: over `bandwidth_bps` or `batch`.
        curves: one per plan, `local` among them.
        title: what was asked, in words.

    Raises:
        ConfigError: as `check_target`, or the file cannot be written.
    """
    check_target(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    axes = figure.add_subplot()
    unit = 1e6 if sweep.axis == "bandwidth_bps" else 1.0
    _draw_envelope(axes, sweep, unit)
    _draw_curves(axes, curves, unit)
    _set_axes(axes, sweep)
    _mark_crossovers(axes, sweep, unit)
    axes.set_title(textwrap.fill(title, _TITLE_WIDTH), loc="left", fontsize=10, pad=12)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=3.0)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix says the format.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; choose another place") from None


def _has_matplotlib() -> bool:
    try:
        return find_spec("matplotlib") is not None
    except ValueError:  # a name that was put into sys.modules without a spec
        return False


def _draw_envelope(axes: Axes, sweep: Sweep, unit: float) -> None:
    at = [point.at / unit for point in sweep.points]
    seconds = [point.predicted_s * 1e3 for point in sweep.points]
    axes.plot(
        at,
        seconds,
        color=_ENVELOPE,
        linewidth=9,
        alpha=0.55,
        solid_capstyle="round",
        label="chosen",
        zorder=1,
    )


def _draw_curves(axes: Axes, curves: Sequence[Curve], unit: float) -> None:
    others = [curve for curve in curves if curve.plan != _LOCAL]
    colours = {curve.plan: _COLOURS[i % len(_COLOURS)] for i, curve in enumerate(others)}
    for curve in sorted(curves, key=lambda curve: curve.plan != _LOCAL):
        at = [place / unit for place, _ in curve.points]
        axes.plot(
            at,
            [seconds * 1e3 for _, seconds in curve.points],
            color=colours.get(curve.plan, "black"),
            linewidth=2.2 if curve.plan == _LOCAL else 1.6,
            linestyle="-" if curve.allowed else (0, (4, 2)),
            marker="o" if unit == 1.0 and len(at) <= 32 else None,
            markersize=3,
            label=curve.plan if curve.allowed else f"{curve.plan} (not allowed)",
            zorder=3,
        )


def _set_axes(axes: Axes, sweep: Sweep) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    axes.set_ylabel("predicted latency of the batch (ms)")
    axes.grid(True, which="major", color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    # Ratios count: a gain is the same height everywhere, and one slow plan hides no other.
    axes.set_yscale("log")
    logarithmic: list[Axis] = [axes.yaxis]
    if sweep.axis == "bandwidth_bps":
        axes.set_xlabel("bandwidth of the link (Mbit/s)")
        axes.set_xscale("log")
        logarithmic.append(axes.xaxis)
    else:
        axes.set_xlabel("batch size (rows per request)")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axis in logarithmic:
        axis.set_major_locator(LogLocator(subs=_steps(*axis.get_view_interval())))
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
    if sweep.axis == "batch":
        if sweep.points[-1].at >= 4 * sweep.points[0].at:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.xaxis.set_major_formatter(plain)


def _steps(low: float, high: float) -> tuple[float, ...]:
    """Return the ticks per decade that leave a readable number of labels."""
    return (1.0, 2.0, 5.0) if math.log10(high / low) < 4 else (1.0,)


def _mark_crossovers(axes: Axes, sweep: Sweep, unit: float) -> None:
    labelled = len(sweep.crossovers) <= _MOST_LABELS
    for index, change in enumerate(sweep.crossovers):
        at = change.at / unit
        colour = "0.35" if labelled else "0.75"
        axes.axvline(at, color=colour, linewidth=1.0, linestyle=":", zorder=2)
        if not labelled:
            continue
        where = f"{at:.3g} Mbit/s" if sweep.axis == "bandwidth_bps" else f"batch {at:g}"
        # In the right half the text stands left of its line, so that it stays inside.
        right = axes.transAxes.inverted().transform(axes.transData.transform((at, 1)))[0] > 0.5
        axes.annotate(
            f"{where}: → {change.after}",
            xy=(at, 0.99 - 0.055 * index),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if right else 5, 0),
            textcoords="offset points",
            horizontalalignment="right" if right else "left",
            va="top",
            fontsize=9,
            color="0.2",
            bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.0},
            zorder=4,
        )
