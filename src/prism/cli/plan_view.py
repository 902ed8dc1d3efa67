"""How the answer of `prism plan` reads: the table, the sentence, and the notes that make it honest.

Every figure shown is the planner's; only the words are made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from prism.cli.plan_answers import (
    board_or_precision,
    candidate_of,
    gain,
    guess,
    second_board,
    times,
    worth_of,
)
from prism.cli.plan_published import published
from prism.plan import Plan

if TYPE_CHECKING:
    from prism.cli.plan_question import Question
    from prism.perfmap import PerformanceMap
    from prism.planner import Candidate, Decision, Sweep

_NO_LIMIT = 10_000  # a terminal wraps a wide table, but nothing is cut off
_NAMED = 4  # plans in one note; --json tells all
_PARTS = ("compute_s", "staging_s", "comm_s", "input_s", "output_s", "other_s")


def show_decision(question: Question, decision: Decision, explain: bool) -> None:
    """Print the plans, cheapest first, and whether a second board or a precision would help."""
    print(asked(question))
    _print_table(*_decision_table(question, decision))
    print(second_board(question, decision)["answer"])
    print(_held_out_line(question.map))
    for note in _notes(question, decision):
        print(note)
    if explain:
        print("\nWhy:")
        _print_pairs((str(each.plan), each.reason) for each in decision.candidates)
        if decision.left_out:
            print("Left out:")
            _print_pairs(decision.left_out)
        if question.map.source:
            print(f"The map: {question.map.source}.")
    print(board_or_precision(question, decision)["answer"])


def show_sweep(question: Question, sweep: Sweep, explain: bool) -> None:
    """Print where the choice changes along one axis; with `explain` the choice at every point."""
    print(asked(question, sweep.axis))
    _print_table(*_interval_table(sweep))
    if not sweep.crossovers:
        print(f"Over this whole range the choice is {sweep.points[0].choice}.")
    claim = published(question, sweep)
    if claim:
        print(claim["explanation"])
    if explain:
        _print_table(*_point_table(sweep))
    print(_held_out_line(question.map))


def asked(question: Question, swept: str = "") -> str:
    """Return the question as one line, without what a sweep varies."""
    link, sources = question.link, question.sources
    rate = _named(f"link {link.bandwidth_bps / 1e6:g} Mbit/s", sources["bandwidth"])
    parts = [
        f"batch {question.batch}" if swept != "batch" else "",
        _named(f"length {question.length}", sources["length"]),
        rate if swept != "bandwidth_bps" else "",
        _named(f"latency {link.latency_s * 1e3:g} ms", sources["latency"]),
        f"least {question.objective.metric}",
    ]
    return f"{question.source}: {', '.join(filter(None, parts))}"


def _named(text: str, source: str) -> str:
    return text if source == "given" else f"{text} ({source})"


def held_out(perf: PerformanceMap) -> dict[str, Any] | None:
    """Return how far this map's predictions were off where it was tested, None if nowhere."""
    errors = [abs(point.error) for point in perf.held_out]
    if not errors:
        return None
    return {"points": len(errors), "median": median(errors), "worst": max(errors)}


def _held_out_line(perf: PerformanceMap) -> str:
    error = held_out(perf)
    if error is None:
        return "Error of these predictions: unknown; no point was held out of the map to test it."
    return (
        f"Error of these predictions at {error['points']} points held out of the map: median "
        f"{error['median']:.1%}, worst {error['worst']:.1%}."
    )


def _notes(question: Question, decision: Decision) -> list[str]:
    notes = []
    if any(each.extrapolated for each in decision.candidates):
        notes.append("~ lies beyond the batch sizes and lengths that were measured.")
    derived = [str(each.plan) for each in decision.candidates if each.derived]
    if derived:
        more = [f"{len(derived) - _NAMED} more"] if derived[_NAMED:] else []
        notes.append(
            f"Derived from float32 and from one node at the precision, never measured: "
            f"{', '.join([*derived[:_NAMED], *more])}."
        )
    if question.objective.metric != "latency" and question.map.energy_scope:
        notes.append(f"Energy: {question.map.energy_scope}.")
    if question.sources["latency"] == "given" and question.map.link.latency_s is None:
        notes.append(
            "The map does not say at which latency it was measured: the latency given is added "
            "to splits of the batch only, not to seq plans."
        )
    return notes


_Rows = list[tuple[list[str], str]]


def _decision_table(question: Question, decision: Decision) -> tuple[list[str], _Rows]:
    """Return headings and a row per plan, cheapest first; parts that are always 0 are left out."""
    metric = question.objective.metric
    parts = [
        name for name in _PARTS if any(getattr(each, name) >= 5e-5 for each in decision.candidates)
    ]
    base = worth_of(candidate_of(decision, Plan()), metric)
    energy = [] if metric == "latency" else ["energy J"]
    headings = ["plan", "total ms", *energy, "gain", *(name[:-2] for name in parts), "answers", ""]
    rows: _Rows = []
    for each in decision.candidates:
        worth = worth_of(each, metric)
        # The flag is about what the objective counts.
        cells = [str(each.plan), f"{'' if energy else guess(each)}{each.predicted_s * 1e3:.1f}"]
        if energy:
            cells.append("-" if each.energy_j is None else f"{guess(each)}{each.energy_j:.2f}")
        cells.append(times(gain(base, worth) if base and worth else None))
        cells.extend(f"{getattr(each, name) * 1e3:.1f}" for name in parts)
        cells.append(_answers(each))
        chosen = each.plan == decision.choice
        cells.append("chosen" if chosen else "" if each.allowed else "may not be used")
        rows.append((cells, _style(each.plan, chosen, each.allowed)))
    return headings, rows


def _answers(candidate: Candidate) -> str:
    if candidate.plan.exact:
        return "exact"
    if candidate.accuracy_drop is None:
        return "unknown"
    # A loss is a negative change, and no change is none: 0 - 0 has no sign.
    text = f"{0.0 - candidate.accuracy_drop:+.2%}"
    if candidate.accuracy_drop_high is not None:
        text += f" (to {0.0 - candidate.accuracy_drop_high:+.2%})"
    return f"{text} {candidate.accuracy_metric}"


def _style(plan: Plan, chosen: bool, allowed: bool) -> str:
    if plan == Plan():
        return "bold cyan"
    return "bold" if chosen else "" if allowed else "dim"


def _interval_table(sweep: Sweep) -> tuple[list[str], _Rows]:
    starts = [sweep.points[0].at, *(change.at for change in sweep.crossovers)]
    plans = [sweep.points[0].choice, *(change.after for change in sweep.crossovers)]
    last = sweep.points[-1].at
    rows: _Rows = []
    for start, end, plan in zip(starts, [*starts[1:], last + 1], plans, strict=True):
        inside = [point for point in sweep.points if start <= point.at < end]
        gains = sorted(point.local_s / point.predicted_s for point in inside)
        to = inside[-1].at if sweep.axis == "batch" else min(end, last)
        cells = [_number(sweep, start), _number(sweep, to), plan]
        ends = dict.fromkeys(f"{gain:.2f}x" for gain in (gains[0], gains[-1])) if gains else ["-"]
        cells.append(" to ".join(ends))
        rows.append((cells, "bold cyan" if plan == str(Plan()) else ""))
    return [f"from {_unit(sweep)}", "to", "plan", "speed-up"], rows


def _point_table(sweep: Sweep) -> tuple[list[str], _Rows]:
    rows: _Rows = []
    for point in sweep.points:
        cells = [_number(sweep, point.at), point.choice, f"{point.predicted_s * 1e3:.1f}"]
        cells += [f"{point.local_s * 1e3:.1f}", f"{point.local_s / point.predicted_s:.2f}x"]
        rows.append((cells, ""))
    return [_unit(sweep), "plan", "plan ms", "local ms", "speed-up"], rows


def _unit(sweep: Sweep) -> str:
    return "batch" if sweep.axis == "batch" else "Mbit/s"


def _number(sweep: Sweep, at: float) -> str:
    return f"{at:g}" if sweep.axis == "batch" else f"{at / 1e6:.4g}"


def _print_table(headings: Sequence[str], rows: _Rows) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        words = heading in ("plan", "")
        table.add_column(heading, justify="left" if words else "right", no_wrap=True)
    for cells, style in rows:
        table.add_row(*cells, style=style)
    console = Console(width=_NO_LIMIT)
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    listed = list(pairs)
    width = max(len(name) for name, _ in listed)
    for name, text in listed:
        print(f"  {name:<{width}}  {text}")
