"""`prism plan`, the dry run: what would be chosen here, and would a second board help?

Reads a performance map and asks the planner; needs no cluster, no model and no torch. Whatever can
be wrong with the question is found before anything is printed or written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from prism.errors import ConfigError, PlanError, RequestError
from prism.plan import Metric, Objective, Plan
from prism.record import LinkState

if TYPE_CHECKING:
    from prism.perfmap import PerformanceMap
    from prism.planner import CostModel, Decision, Sweep

_RANGE = re.compile(r"(bandwidth|batch)(?:=(.+?)\.\.(.+))?")
_BANDWIDTHS_BPS = (5e6, 500e6)
_BATCHES = (1, 32)
_MOST_BATCHES = 1024
_JUST_FAILED = "as if it had just failed, so it is left alone for now"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(plan)


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
    """Say which plan would be chosen, what each would cost, and whether a second board helps."""
    from prism.cli import output, plan_view
    from prism.planner import decide

    question = _ask(
        map_,
        batch,
        length,
        _quantity("--bandwidth", bandwidth),
        _quantity("--latency", latency),
        Objective(cast(Metric, objective), max_accuracy_drop),
        allow,
        alive or (),
        failed or (),
    )
    swept = _sweep(question, sweep, plot)
    decision = decide(
        question.model, question.batch, question.length, question.link, **question.leave
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


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a map; `sources` says where length, bandwidth and latency come from."""

    source: str
    model: CostModel
    batch: int
    length: int
    link: LinkState
    objective: Objective
    allow: tuple[Plan, ...] | None
    alive: tuple[str, ...]
    failed: tuple[str, ...]
    sources: dict[str, str]

    @property
    def map(self) -> PerformanceMap:
        """The map that answers."""
        return self.model.map

    @property
    def leave(self) -> dict[str, Any]:
        """What the planner takes by name: nodes, objective, plans allowed and those left alone."""
        return {
            "alive": self.alive,
            "objective": self.objective,
            "allow": self.allow,
            "backoff": {each: _JUST_FAILED for each in self.failed},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "map": self.source,
            "batch": self.batch,
            "length": self.length,
            "link": {"bandwidth_bps": self.link.bandwidth_bps, "latency_s": self.link.latency_s},
            "objective": self.objective.metric,
            "max_accuracy_drop": self.objective.max_accuracy_drop,
            "allow": None if self.allow is None else [str(plan) for plan in self.allow],
            "alive": list(self.alive),
            "failed": list(self.failed),
            "sources": self.sources,
        }


def _ask(
    source: str,
    batch: int,
    length: int | None,
    bandwidth_bps: float | None,
    latency_s: float | None,
    objective: Objective,
    allow: Sequence[str] | None,
    alive: Sequence[str],
    failed: Sequence[str],
) -> Question:
    from prism.perfmap import PerformanceMap
    from prism.perfmap.performance import EXAMPLES, load_example
    from prism.planner import CostModel

    texts = None if allow is None else [Plan.parse(text) for text in allow]
    if batch < 1:
        raise RequestError(f"--batch must be at least 1, not {batch}")
    perf = load_example(source) if source in EXAMPLES else PerformanceMap.load(Path(source))
    model = CostModel(perf)
    link = perf.link.state()
    known = "as measured" if perf.link.latency_s is not None else "not in the map"
    length, length_source = _length(perf, length)
    names = [node.name for node in perf.nodes]
    question = Question(
        source,
        model,
        batch,
        length,
        LinkState(
            link.bandwidth_bps if bandwidth_bps is None else bandwidth_bps,
            link.latency_s if latency_s is None else latency_s,
        ),
        objective,
        None if texts is None else tuple(dict.fromkeys(texts)),
        # In whatever order they are named, the first node stays the first node.
        tuple(sorted(dict.fromkeys(alive or names), key=lambda name: name != model.first)),
        tuple(dict.fromkeys(each if each in names else Plan.parse(each).shape for each in failed)),
        {
            "length": length_source,
            "bandwidth": "as measured" if bandwidth_bps is None else "given",
            "latency": known if latency_s is None else "given",
        },
    )
    if question.alive[0] != model.first:
        raise PlanError(
            f"--alive: the first node alive must be the map's first {model.first}, "
            f"not {question.alive[0]}; add it"
        )
    _check_plans(question, "--allow", question.allow or ())
    shapes = [Plan.parse(each) for each in question.failed if each not in names]
    _check_plans(question, "--failed", shapes)
    return question


def _length(perf: PerformanceMap, length: int | None) -> tuple[int, str]:
    """Return the length to ask for, and where it comes from."""
    longest = perf.model.max_length
    if length is not None:
        if not 1 <= length <= longest:
            raise RequestError(f"--length must lie in 1..{longest}, as the model does: {length}")
        return length, "given"
    lengths = {entry.length for entry in perf.measurements}
    if len(lengths) == 1:
        return lengths.pop(), "the only one in the map"
    return longest, "the longest the model takes"


def _check_plans(question: Question, option: str, plans: Iterable[Plan]) -> None:
    """Refuse a plan given to an option that the map could not predict for any request."""
    for plan in plans:
        if plan != Plan():
            rows, length = max(question.batch, plan.size), max(question.length, plan.size)
            try:
                question.model.predict(plan, rows, length, question.link)
            except PlanError as error:
                shapes = ", ".join(question.map.by_shape)
                raise PlanError(f"{option}: {error}; the map has {shapes}") from None


def _quantity(option: str, text: str | None) -> float | None:
    """Read one bandwidth or latency with its unit, in bit/s or seconds."""
    from prism.emulation.link import LinkShape

    if text is None:
        return None
    try:
        shape = LinkShape.parse(text)
    except ConfigError:
        shape = LinkShape()
    if option == "--latency":
        # Only a time reads as a shape that is nothing but its latency; "none" reads as no link.
        if shape == LinkShape(latency_s=shape.latency_s) and text.strip()[:1].isdigit():
            return shape.latency_s
        raise ConfigError(f"{option} must be a time of 0 or more, such as 2ms, not {text!r}")
    if shape.bandwidth_bps and shape == LinkShape(shape.bandwidth_bps):
        return shape.bandwidth_bps
    raise ConfigError(f"{option} must be a rate above 0, such as 400mbit, not {text!r}")


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
            question.model, batches, question.length, question.link, **question.leave
        )
    asked = question.link.bandwidth_bps
    low_bps = _quantity("--sweep bandwidth", low) or min(asked, _BANDWIDTHS_BPS[0])
    high_bps = _quantity("--sweep bandwidth", high) or max(asked, _BANDWIDTHS_BPS[1])
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
        **question.leave,
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
    field = decide(question.model, *place(sweep.points[-1].at), **question.leave).candidates
    curves = trace(question.model, sweep, field, place)
    draw_sweep(path, sweep, curves, asked(question, sweep.axis))


def _document(question: Question, decision: Decision, sweep: Sweep | None) -> dict[str, Any]:
    from prism.cli import plan_published, plan_view

    document = {
        "request": question.to_dict(),
        **decision.to_dict(),
        "second_board": plan_view.second_board(question, decision),
        "held_out_error": plan_view.held_out(question.map),
    }
    if sweep:
        document["sweep"] = sweep.to_dict()
        document["published"] = plan_published.published(question, sweep)
    return document
