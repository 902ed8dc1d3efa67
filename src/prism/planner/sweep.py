"""Where the choice changes: over bandwidth, over batch size, and between two plans."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from prism.errors import InputError, PlanError
from prism.plan import Objective, Plan
from prism.planner.cost_model import CostModel
from prism.planner.decision import Decision
from prism.planner.links import AnyLinks, Links
from prism.planner.policy import decide

_STEPS = 48
_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Point:
    """The choice at one bandwidth or batch size, beside local."""

    at: float
    choice: str
    predicted_s: float
    local_s: float


@dataclass(frozen=True, slots=True)
class Crossover:
    """From `at` on, upwards, `after` is chosen instead of `before`."""

    at: float
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """Choices along one axis, `bandwidth_bps` or `batch`, and where they change."""

    axis: str
    points: tuple[Point, ...]
    crossovers: tuple[Crossover, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def sweep_bandwidth(
    model: CostModel,
    batch: int,
    length: int,
    link: AnyLinks,
    *,
    low_bps: float = 1e6,
    high_bps: float = 1e10,
    alive: Sequence[str] = (),
    objective: Objective | None = None,
    allow: Iterable[Plan] | None = None,
    backoff: Mapping[str, str] | None = None,
) -> Sweep:
    """Return the choices for one batch from `low_bps` to `high_bps`, crossovers bisected.

    Raises:
        InputError: the range is empty or not above 0, or as `decide` does.
        PlanError: the first node is not among those alive, or as `decide` does.
    """
    _check_first(model, alive)
    if not 0 < low_bps < high_bps < math.inf:
        raise InputError(
            f"a sweep runs from a bandwidth above 0 to a higher one, not {low_bps}..{high_bps}"
        )
    links = Links.of(link, model.map.link.state())
    leave: dict[str, Any] = {
        "alive": alive,
        "objective": objective,
        "allow": None if allow is None else tuple(allow),
        "backoff": backoff,
    }

    def choose(bandwidth_bps: float) -> Decision:
        return decide(model, batch, length, links.at_bandwidth(bandwidth_bps), **leave)

    ratio = (high_bps / low_bps) ** (1 / _STEPS)
    places = [low_bps * ratio**step for step in range(_STEPS)] + [high_bps]
    decisions = [(place, choose(place)) for place in places]
    crossovers = []
    for (low, before), (high, after) in pairwise(decisions):
        if before.choice != after.choice:
            crossovers.extend(_between(choose, low, before.choice, high, after.choice))
    points = tuple(_point(at, decision) for at, decision in decisions)
    return Sweep("bandwidth_bps", points, tuple(crossovers))


def sweep_batch(
    model: CostModel,
    batches: Sequence[int],
    length: int,
    link: AnyLinks,
    *,
    alive: Sequence[str] = (),
    objective: Objective | None = None,
    allow: Iterable[Plan] | None = None,
    backoff: Mapping[str, str] | None = None,
) -> Sweep:
    """Return the choices for each batch size, and those at which they change.

    Raises:
        PlanError: the first node is not among those alive, or as `decide` does.
    """
    _check_first(model, alive)
    leave: dict[str, Any] = {
        "alive": alive,
        "objective": objective,
        "allow": None if allow is None else tuple(allow),
        "backoff": backoff,
    }
    points = tuple(
        _point(batch, decide(model, batch, length, link, **leave)) for batch in sorted(batches)
    )
    crossovers = tuple(
        Crossover(after.at, before.choice, after.choice)
        for before, after in pairwise(points)
        if before.choice != after.choice
    )
    return Sweep("batch", points, crossovers)


def crossover_bps(
    model: CostModel,
    plan: Plan,
    other: Plan,
    batch: int,
    length: int,
    link: AnyLinks,
    *,
    low_bps: float = 1e6,
    high_bps: float = 1e10,
) -> float | None:
    """Return the bandwidth above which `plan` is predicted to be faster than `other`.

    None if it is so over the whole range, or nowhere in it.
    """
    links = Links.of(link, model.map.link.state())

    def gain_s(bandwidth_bps: float) -> float:
        now = links.at_bandwidth(bandwidth_bps)
        return (
            model.predict(other, batch, length, now).total_s
            - model.predict(plan, batch, length, now).total_s
        )

    if gain_s(low_bps) > 0 or gain_s(high_bps) <= 0:
        return None
    return _bisect(lambda bandwidth_bps: gain_s(bandwidth_bps) <= 0, low_bps, high_bps)


def _check_first(model: CostModel, alive: Sequence[str]) -> None:
    """Refuse a sweep without `local`, beside which every point stands."""
    if alive and alive[0] != model.first:
        raise PlanError(
            f"a sweep is beside local, so the first node alive must be the map's first "
            f"{model.first}, not {alive[0]}"
        )


def _between(
    choose: Callable[[float], Decision], low: float, before: Plan, high: float, after: Plan
) -> list[Crossover]:
    """Return the changes between two places, those to a third plan included."""
    found = []
    while before != after:
        low = _bisect(partial(_chooses, choose, before), low, high)
        following = choose(low).choice
        found.append(Crossover(low, str(before), str(following)))
        before = following
    return found


def _chooses(choose: Callable[[float], Decision], plan: Plan, place: float) -> bool:
    return choose(place).choice == plan


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return where `holds`, true at `low` and false at `high`, has just become false."""
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        if holds(middle):
            low = middle
        else:
            high = middle
    return high


def _point(at: float, decision: Decision) -> Point:
    local = next(entry for entry in decision.candidates if entry.plan == Plan())
    return Point(at, str(decision.choice), decision.predicted_s, local.predicted_s)
