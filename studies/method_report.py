"""The results of a study for people: a table in Markdown and a plot of drop against bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism.plan import Plan

Row = Mapping[str, float]
STAGES = ("before", "after")
# Told apart by colour-blind readers too (Okabe and Ito).
_COLOURS = {"segments": "#D55E00", "clusters": "#0072B2"}
_MARKERS = {2: "o", 3: "s", 4: "^"}
_NAMES = {"segments": "L, segments", "clusters": "C, clusters"}


@dataclass(frozen=True)
class Layout:
    """How the results of one study are shown.

    Attributes:
        title: of the page and the plot.
        text: what was measured, a paragraph.
        columns: heading, key of a row and format of each metric.
        drop: what is lost under a plan, from its row; 0 = nothing.
        drop_name: the axis of the plot.
    """

    title: str
    text: str
    columns: tuple[tuple[str, str, str], ...]
    drop: Callable[[Row], float]
    drop_name: str


def page(results: Mapping[str, Any], layout: Layout, plot: str) -> str:
    """Return the Markdown page of a study.

    Args:
        results: the content of its JSON file.
        layout: how it is shown.
        plot: file name of the figure beside the page.
    """
    setting = ", ".join(f"{name} {value}" for name, value in results["setting"].items())
    parts = [
        f"# {layout.title}",
        layout.text,
        f"![{layout.drop_name} against bytes per block]({plot})",
        table(results, layout),
        f"Setting: {setting}.",
        origin(results),
    ]
    return "\n\n".join(parts) + "\n"


def table(results: Mapping[str, Any], layout: Layout) -> str:
    """Return a line per plan: bytes per block, then each metric before and after training."""
    stages = [stage for stage in STAGES if stage in results]
    heads = [f"{head}, {stage}" for head, _, _ in layout.columns for stage in stages]
    lines = [
        "| plan | bytes per block | " + " | ".join(heads) + " |",
        "|---|---:|" + "---:|" * len(heads),
    ]
    plans = {plan: row for stage in stages for plan, row in results[stage]["plans"].items()}
    for plan, row in plans.items():
        cells = [
            _cell(results[stage]["plans"].get(plan), key, form)
            for _, key, form in layout.columns
            for stage in stages
        ]
        lines.append(f"| `{plan}` | {row['bytes_per_block']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Row | None, key: str, form: str) -> str:
    return "" if row is None else format(row[key], form)


def origin(results: Mapping[str, Any]) -> str:
    """Return by which commands, when and with which versions the figures came about."""
    lines = []
    for stage in ("before", "finetune", "after"):
        if stage in results:
            found = results[stage]
            used = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
            lines.append(f"- `{found['command']}` ({found['date']}; {used})")
    if "finetune" in results:
        done = results["finetune"]
        lines.append(
            f"- Training: {done['steps']} steps of {done['batch']} samples in "
            f"{done['seconds'] / 60:.1f} min, torch threads: {done['threads']}."
        )
    return "\n".join(lines)


def draw(path: Path, results: Mapping[str, Any], layout: Layout) -> None:
    """Draw what plans lose against the bytes they send; a panel per lag. Needs matplotlib.

    Args:
        path: to write; the suffix says the format.
        results: the content of a study's JSON file.
        layout: how it is shown.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    points = _points(results, layout)
    lags = sorted({plan.lag for _, plan, _, _ in points})
    figure = Figure(figsize=(1.5 + 4.3 * len(lags), 4.4), layout="constrained")
    panels: Sequence[Any] = figure.subplots(1, len(lags), sharey=True, squeeze=False)[0]
    for axes, lag in zip(panels, lags, strict=True):
        _draw_panel(axes, [point for point in points if point[1].lag == lag])
        axes.set_title("without lag" if lag == 0 else "lag 1", loc="left", fontsize=10)
    panels[0].set_ylabel(layout.drop_name)
    panels[-1].legend(
        handles=_legend(), loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False
    )
    figure.suptitle(layout.title, x=0.01, ha="left", fontsize=11)
    # Without a salt and with a date, the same figures would give another file each time.
    with rc_context({"svg.hashsalt": layout.title}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)


def _points(results: Mapping[str, Any], layout: Layout) -> list[tuple[str, Plan, float, float]]:
    """Return stage, plan, bytes and drop of everything that splits the model."""
    found = [
        (stage, Plan.parse(text), row["bytes_per_block"], max(layout.drop(row), 1e-4))
        for stage in STAGES
        if stage in results
        for text, row in results[stage]["plans"].items()
    ]
    return [point for point in found if point[1].exchanges]


def _draw_panel(axes: Any, points: Sequence[tuple[str, Plan, float, float]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for stage in STAGES:
        for grouping, colour in _COLOURS.items():
            for nodes, marker in _MARKERS.items():
                chosen = sorted(
                    (sent, drop)
                    for when, plan, sent, drop in points
                    if (when, plan.grouping, plan.size) == (stage, grouping, nodes)
                )
                axes.plot(
                    [sent / 1e3 for sent, _ in chosen],
                    [drop for _, drop in chosen],
                    color=colour,
                    marker=marker,
                    markersize=5,
                    linewidth=1.0,
                    markerfacecolor="white" if stage == "before" else colour,
                    linestyle=":" if stage == "before" else "-",
                )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("kB per sample and block at the busiest node")
    axes.grid(True, which="major", color="0.88", linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D

    groups = [Line2D([], [], color=_COLOURS[key], label=name) for key, name in _NAMES.items()]
    sizes = [
        Line2D([], [], color="0.3", marker=marker, linestyle="", label=f"{nodes} nodes")
        for nodes, marker in _MARKERS.items()
    ]
    stages = [
        Line2D([], [], color="0.3", linestyle=":", marker="o", mfc="white", label="as it was"),
        Line2D([], [], color="0.3", linestyle="-", marker="o", label="trained for plans"),
    ]
    return groups + sizes + stages
