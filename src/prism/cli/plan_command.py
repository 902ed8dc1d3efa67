"""`prism plan`, the dry run: what would be chosen here, and would a second board help?

Reads a performance map and asks the planner; needs no cluster, no model and no torch. Whatever can
be wrong with the question is found before anything is printed or written.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from prism.cli.arguments import POINT_ESTIMATE_HELP
from prism.cli.plan_question import Question, ask, quantity
from prism.errors import ConfigError
from prism.plan import Metric, Objective
from prism.record import LinkState

if TYPE_CHECKING:
    from prism.planner import Decision, Sweep

_RANGE = re.compile(r"(bandwidth|batch)(?:=(.+?)\.\.(.+))?")
_BANDWIDTHS_BPS = (5e6, 500e6)
_BATCHES = (1, 32)
_MOST_BATCHES = 1024


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: prism plan --map paper --batch 8 --bandwidth 100mbit")(plan)


def plan(
    map_: Annotated[
        str, typer.Option("--map", metavar="FILE|paper", help="A map; paper = the shipped one.")
    ],
    batch: Annotated[int, typer.Option(help="Rows per request.")] = 1,
    length: Annotated[int | None, typer.Option(help="Positions per row.")] = None,
    bandwidth: Annotated[str | None, typer.Option(help="Of the link: 400mbit.")] = None,
    latency: Annotated[str | None, typer.Option(help="Of the link, one way: 2ms.")] = None,
    objective: Annotated[str, typer.Option(help="latency, energy or edp.")] = "latency",
    max_accuracy_drop: Annotated[
        float, typer.Option(help="Measured drop that is tolerated, 0..1; 0.02 = 2 points.")
    ] = 0.0,
    point_estimate: Annotated[
        bool, typer.Option("--point-estimate", help=POINT_ESTIMATE_HELP)
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="PLAN", help="Only these and local; repeatable.")
    ] = None,
    alive: Annotated[
        list[str] | None, typer.Option(metavar="NODE", help="Nodes that answer; repeatable.")
    ] = None,
    failed: Annotated[
        list[str] | None,
        typer.Option(metavar="PLAN|NODE", help="As if it had just failed; repeatable."),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(help="bandwidth[=5mbit..500mbit] or batch[=1..32]: where it changes."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the sweep: FILE.png.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why, plan by plan.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say which plan would be chosen, what each costs, and whether a board or a precision helps."""
    from prism.cli import output, plan_view
    from prism.planner import decide

    question = ask(
        map_,
        batch,
        length,
        quantity("--bandwidth", bandwidth),
        quantity("--latency", latency),
        Objective(cast(Metric, objective), max_accuracy_drop, point_estimate),
        allow,
        alive or (),
        failed or (),
    )
    swept = _sweep(question, sweep, plot)
    decision = decide(
        question.model, question.batch, question.length, question.link, **question.limits
    )
    if plot and swept:
        _draw(question, swept, plot)
    if as_json:
        output.print_json(_document(question, decision, swept))
    elif swept:
        plan_view.show_sweep(question, swept, explain)
    else:
        plan_view.show_decision(question, decision, explain)
    if plot and not as_json:
        print(f"drawn: {plot}")


def _sweep(question: Question, text: str | None, plot: Path | None) -> Sweep | None:
    from prism.planner import sweep_bandwidth, sweep_batch

    if text is None:
        if plot:
            raise ConfigError(f"--plot {plot} draws a sweep; add --sweep bandwidth or batch")
        return None
    if plot:
        from prism.bench.plots import check_target

        check_target(plot)
    match = _RANGE.fullmatch(text)
    if not match:
        raise ConfigError(
            f"--sweep {text!r} is not understood; write bandwidth, bandwidth=5mbit..500mbit, "
            f"batch or batch=1..32"
        )
    axis, low, high = match.groups()
    if axis == "batch":
        batches = _batches(low, high)
        return sweep_batch(
            question.model, batches, question.length, question.link, **question.limits
        )
    asked = question.link.bandwidth_bps
    low_bps = quantity("--sweep bandwidth", low) or min(asked, _BANDWIDTHS_BPS[0])
    high_bps = quantity("--sweep bandwidth", high) or max(asked, _BANDWIDTHS_BPS[1])
    if low_bps >= high_bps:
        raise ConfigError(
            f"--sweep bandwidth runs from a rate to a higher one, such as "
            f"bandwidth=5mbit..500mbit, not {low}..{high}"
        )
    return sweep_bandwidth(
        question.model,
        question.batch,
        question.length,
        question.link,
        low_bps=low_bps,
        high_bps=high_bps,
        **question.limits,
    )


def _batches(low: str | None, high: str | None) -> range:
    if low is None or high is None:
        return range(_BATCHES[0], _BATCHES[1] + 1)
    if low.isdecimal() and high.isdecimal() and len(low + high) < 20:
        batches = range(int(low), int(high) + 1)
        if 1 <= batches.start < batches.stop and len(batches) <= _MOST_BATCHES:
            return batches
    raise ConfigError(
        f"--sweep batch runs from a size of at least 1 upwards, over at most "
        f"{_MOST_BATCHES} sizes, such as batch=1..32, not {low}..{high}"
    )


def _draw(question: Question, sweep: Sweep, path: Path) -> None:
    from prism.bench.plots import draw_sweep, trace
    from prism.cli.plan_view import asked
    from prism.planner import decide

    def place(at: float) -> tuple[int, int, LinkState]:
        if sweep.axis == "batch":
            return int(at), question.length, question.link
        return question.batch, question.length, replace(question.link, bandwidth_bps=at)

    # The last place has every plan that any has: batches only rule plans out when too small.
    field = decide(question.model, *place(sweep.points[-1].at), **question.limits).candidates
    curves = trace(question.model, sweep, field, place)
    draw_sweep(path, sweep, curves, asked(question, sweep.axis))


def _document(question: Question, decision: Decision, sweep: Sweep | None) -> dict[str, Any]:
    from prism.cli import plan_answers, plan_published, plan_view

    document = {
        "request": question.to_dict(),
        **decision.to_dict(),
        "second_board": plan_answers.second_board(question, decision),
        "board_or_precision": plan_answers.board_or_precision(question, decision),
        "held_out_error": plan_view.held_out(question.map),
    }
    if sweep:
        document["sweep"] = sweep.to_dict()
        document["published"] = plan_published.published(question, sweep)
    return document
