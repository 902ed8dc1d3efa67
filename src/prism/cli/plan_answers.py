"""What `prism plan` answers in words: would a second board help, or a precision on this one?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prism.plan import PRECISIONS, Plan

if TYPE_CHECKING:
    from prism.cli.plan_question import Question
    from prism.plan import Objective, Precision
    from prism.planner import Candidate, Decision

_MEASURE_LOSS = "`prism evaluate MODEL DATA --map MAP`"


class Worth(NamedTuple):
    """What an objective counts, in the unit it is told in."""

    value: float
    text: str


def worth_of(candidate: Candidate, metric: str) -> Worth | None:
    """Return what a plan costs by a metric, in its unit; None if nobody measured the energy."""
    about = guess(candidate)
    if metric == "latency":
        return Worth(candidate.predicted_s, f"{about}{candidate.predicted_s * 1e3:.1f} ms")
    if candidate.energy_j is None:
        return None
    if metric == "energy":
        return Worth(candidate.energy_j, f"{about}{candidate.energy_j:.2f} J")
    product = candidate.energy_j * candidate.predicted_s
    return Worth(product, f"{about}{product:.3f} J*s")


def guess(candidate: Candidate) -> str:
    """Return the mark of a figure beyond what was measured."""
    return "~" if candidate.extrapolated else ""


def gain(base: Worth, cost: Worth) -> float | None:
    """Return how many times less something costs than `base`, None where it costs nothing."""
    return base.value / cost.value if cost.value else None


def times(factor: float | None) -> str:
    """Return a gain in words."""
    return "-" if factor is None else f"{factor:.2f}x"


def candidate_of(decision: Decision, plan: Plan) -> Candidate:
    """Return a plan of the field by its name."""
    return next(each for each in decision.candidates if each.plan == plan)


def second_board(question: Question, decision: Decision) -> dict[str, Any]:
    """Answer whether another board helps: yes or no, the gain (2 = half the cost), in words.

    Compared with the best that one board may do, at whatever precision.
    """
    metric = question.objective.metric
    chosen, alone = candidate_of(decision, decision.choice), _best_alone(question, decision)
    base, cost = worth_of(alone, metric), worth_of(chosen, metric)
    assert base is not None and cost is not None  # the planner refuses an objective without them
    # Where local has just failed, another board is used even if it is slower.
    helps = _elsewhere(question, chosen) and cost.value <= base.value
    rivals = [each for each in decision.candidates if _elsewhere(question, each)]
    rival = next((each for each in rivals if each.allowed), None)
    gained = gain(base, cost)
    one_board = "one board" if alone.plan == Plan() else f"one board ({alone.plan})"
    if helps:
        answer = (
            f"Yes: {chosen.plan} is predicted to need {cost.text} against {base.text} on "
            f"{one_board}, {1 - cost.value / base.value:.0%} less ({times(gained)})."
        )
    elif rival is not None and (worth := worth_of(rival, metric)) is not None:
        answer = (
            f"No: the best plan with another board, {rival.plan}, is predicted to need "
            f"{worth.text} against {base.text} on {one_board}."
        )
    else:
        answer = f"No: {_no_rival(rivals)}."
    answer += _ruled_out(rivals, chosen, metric, cost.value)
    return {"helps": helps, "gain": gained, "answer": f"Would a second board help? {answer}"}


def _best_alone(question: Question, decision: Decision) -> Candidate:
    """Return the cheapest plan of the first board that may be used; `local` if none may."""
    alone = (each for each in decision.candidates if not _elsewhere(question, each))
    return next((each for each in alone if each.allowed), candidate_of(decision, Plan()))


def _elsewhere(question: Question, candidate: Candidate) -> bool:
    return candidate.plan.size > 1 or bool(set(candidate.plan.nodes) - {question.model.first})


def _no_rival(rivals: Sequence[Candidate]) -> str:
    if rivals:
        return "no plan with another board may be used"
    return "the map has no plan with another board for this request (--explain says why)"


def _ruled_out(rivals: Sequence[Candidate], chosen: Candidate, metric: str, least: float) -> str:
    """Name the best plan that may not be used, if it would be better than the chosen one.

    Of the chosen one's precision: the other precisions have a sentence of their own.
    """
    for rival in rivals:
        worth = worth_of(rival, metric)
        alike = rival.plan.precision == chosen.plan.precision
        if alike and not rival.allowed and worth and worth.value < least:
            return f" {rival.plan} would need {worth.text}, but may not be used: {rival.reason}."
    return ""


def board_or_precision(question: Question, decision: Decision) -> dict[str, Any]:
    """Answer what a second board, each lower precision on this one, and both gain and lose.

    Each is the best of its kind that may be used, else the best whose loss is known, else the best
    at all; None where the map has none. Gains are over `local` in float32.
    """
    known = [each for each in PRECISIONS[1:] if each in question.model.precisions]
    elsewhere = [each for each in decision.candidates if _elsewhere(question, each)]
    found: dict[str, Candidate | None] = {
        "second_board": _best(each for each in elsewhere if each.plan.precision == "float32")
    }
    for precision in PRECISIONS[1:]:
        alone = Plan(precision=precision)
        found[precision] = _best(each for each in decision.candidates if each.plan == alone)
    found["both"] = _best(each for each in elsewhere if each.plan.precision != "float32")
    base = candidate_of(decision, Plan())
    told = [f"A second board: {_told(question, base, found['second_board'])}."]
    told += [f"{each} on this one: {_told(question, base, found[each])}." for each in known]
    if known:
        told.append(f"Both: {_told(question, base, found['both'])}.")
    asked = " or ".join(reversed(known or PRECISIONS[1:]))
    answer = [f"A second board, or {asked} on this one?", *told, *_advice(found.values(), known)]
    metric = question.objective.metric
    ways = {name: _way(base, each, metric) if each else None for name, each in found.items()}
    return {**ways, "answer": " ".join(answer)}


def _best(candidates: Iterable[Candidate]) -> Candidate | None:
    """Return the first, and so the cheapest, of those that may be used or whose loss is known."""
    return min(
        candidates, key=lambda each: (not each.allowed, each.accuracy_drop is None), default=None
    )


def _told(question: Question, base: Candidate, candidate: Candidate | None) -> str:
    """Return what a plan costs, gains and loses."""
    if candidate is None:
        return "no plan of the map for this request"
    metric = question.objective.metric
    worth, local = worth_of(candidate, metric), worth_of(base, metric)
    if worth is None or local is None:
        return f"{metric} never measured ({candidate.plan})"
    facts = [str(candidate.plan), _loss(candidate), *_limits(candidate, question.objective)]
    return f"{worth.text}, {times(gain(local, worth))} ({', '.join(facts)})"


def _loss(candidate: Candidate) -> str:
    """Return what a plan loses, in points, and at most."""
    if candidate.plan.exact:
        return "exact"
    drop, high = candidate.accuracy_drop, candidate.accuracy_drop_high
    if drop is None:
        return "its loss never measured"
    lost = "loses" if drop >= 0 else "gains"
    text = f"{lost} {100 * abs(drop):.2f} points of {candidate.accuracy_metric}"
    if high is None:
        return text
    return f"{text}, {'at most' if drop >= 0 else 'loses at most'} {100 * high:.2f}"


def _limits(candidate: Candidate, objective: Objective) -> list[str]:
    """Return what else must be known of a plan: that it may not be used as asked, and why."""
    derived = ["derived"] if candidate.derived else []
    if candidate.allowed or (candidate.accuracy_drop is None and not candidate.plan.exact):
        return derived
    drop, high = candidate.accuracy_drop or 0.0, candidate.accuracy_drop_high
    counted = drop if objective.point_estimate or high is None else max(drop, high)
    if counted > objective.max_accuracy_drop:
        enough = math.ceil(counted * 1e4) / 1e4
        return [*derived, f"needs --max-accuracy-drop {enough:g}"]
    return [*derived, f"may not be used: {candidate.reason}"]


def _way(base: Candidate, candidate: Candidate, metric: str) -> dict[str, Any]:
    worth, local = worth_of(candidate, metric), worth_of(base, metric)
    return {
        "plan": str(candidate.plan),
        "predicted_s": candidate.predicted_s,
        "energy_j": candidate.energy_j,
        "gain": gain(local, worth) if local and worth else None,
        "accuracy_drop": candidate.accuracy_drop,
        "accuracy_drop_high": candidate.accuracy_drop_high,
        "accuracy_metric": candidate.accuracy_metric,
        "allowed": candidate.allowed,
        "derived": candidate.derived,
    }


def _advice(found: Iterable[Candidate | None], known: Sequence[Precision]) -> list[str]:
    """Return which commands measure what nobody has measured."""
    advice = []
    unknown = [each for each in PRECISIONS[1:] if each not in known]
    if unknown:
        also = ",".join(each for each in PRECISIONS if each not in unknown)
        advice.append(
            f"{' and '.join(unknown)} on this one: never measured; "
            f"`prism profile MODEL --precisions {also},{','.join(unknown)}` does."
        )
    if any(each and each.accuracy_drop is None for each in found):
        advice.append(f"{_MEASURE_LOSS} measures what a plan loses.")
    return advice
