"""The question that `prism plan` puts to a map: its arguments, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism.errors import ConfigError, PlanError, RequestError
from prism.plan import Objective, Plan
from prism.record import LinkState

if TYPE_CHECKING:
    from prism.perfmap import PerformanceMap
    from prism.planner import CostModel

_JUST_FAILED = "as if it had just failed, so it is left alone for now"


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
    def limits(self) -> dict[str, Any]:
        """What the choice is limited by, as the planner takes it by name."""
        return {
            "alive": self.alive,
            "objective": self.objective,
            "allow": self.allow,
            "backoff": dict.fromkeys(self.failed, _JUST_FAILED),
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
            "point_estimate": self.objective.point_estimate,
            "allow": None if self.allow is None else [str(plan) for plan in self.allow],
            "alive": list(self.alive),
            "failed": list(self.failed),
            "sources": self.sources,
        }


def ask(
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
    """Read the map and make the question; what was not given comes from the map.

    Args:
        source: the file of the map, or `paper`.
        batch: rows per request.
        length: positions per row.
        bandwidth_bps: of the link, bit/s.
        latency_s: of the link, one way.
        objective: what to minimise, and the accuracy it may cost.
        allow: plans in text form; None = all.
        alive: nodes that answer; empty = all.
        failed: plans in text form, and nodes, that are to be left alone.

    Raises:
        InputError: the map cannot be read, or it cannot answer such a question; says why.
    """
    from prism.perfmap import PerformanceMap
    from prism.perfmap.performance import EXAMPLES, load_example
    from prism.planner import CostModel

    plans = None if allow is None else tuple(dict.fromkeys(map(Plan.parse, allow)))
    if batch < 1:
        raise RequestError(f"--batch must be at least 1, not {batch}")
    perf = load_example(source) if source in EXAMPLES else PerformanceMap.load(Path(source))
    model = CostModel(perf)
    link, link_sources = _link(perf, bandwidth_bps, latency_s)
    length, length_source = _length(perf, length)
    nodes = [node.name for node in perf.nodes]
    question = Question(
        source=source,
        model=model,
        batch=batch,
        length=length,
        link=link,
        objective=objective,
        allow=plans,
        # In whatever order they are named, the first node stays the first node.
        alive=tuple(sorted(dict.fromkeys(alive or nodes), key=lambda name: name != model.first)),
        failed=tuple(
            dict.fromkeys(each if each in nodes else Plan.parse(each).shape for each in failed)
        ),
        sources={"length": length_source, **link_sources},
    )
    if question.alive[0] != model.first:
        raise PlanError(
            f"--alive: the first node alive must be the map's first {model.first}, "
            f"not {question.alive[0]}; add it"
        )
    _check_plans(question, "--allow", question.allow or ())
    shapes = [Plan.parse(each) for each in question.failed if each not in nodes]
    _check_plans(question, "--failed", shapes)
    return question


def _link(
    perf: PerformanceMap, bandwidth_bps: float | None, latency_s: float | None
) -> tuple[LinkState, dict[str, str]]:
    """Return the link to ask for, and where its figures come from."""
    link = perf.link.state()
    known = "as measured" if perf.link.latency_s is not None else "not in the map"
    asked = LinkState(
        link.bandwidth_bps if bandwidth_bps is None else bandwidth_bps,
        link.latency_s if latency_s is None else latency_s,
    )
    return asked, {
        "bandwidth": "as measured" if bandwidth_bps is None else "given",
        "latency": known if latency_s is None else "given",
    }


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


def quantity(option: str, text: str | None) -> float | None:
    """Read one bandwidth or latency with its unit.

    Args:
        option: what it was given for; `--latency` is a time, all others are rates.
        text: such as `400mbit` or `2ms`; None was not given.

    Returns:
        Bit/s or seconds; None where nothing was given.

    Raises:
        ConfigError: it is neither.
    """
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
