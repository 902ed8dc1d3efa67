"""How long a request may take before its nodes are given up: from what it is expected to take.

Expected is what the planner predicts for the link as it is, and what the plan's own runs took,
whichever is more. Pure; a run that was given up is an observation too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_LEAST_S = 2.0
_GRACE_S = 2.0
_PATIENCE = 3.0  # a run may take so many times what is expected, and more where runs scatter
# One exchange is a small part of a run, so this is more patient than it looks. It is also how long
# the others are stuck with a peer that froze.
_EXCHANGE_PATIENCE = 2.0
# Before anything is known there is nothing to derive a deadline from. Nodes that die or freeze are
# noticed by their silence; these only end what is alive and stuck.
_FIRST_EXCHANGE_S = 30.0
_FIRST_ANSWER_S = 900.0
# Weight of a run against those before it.
_WEIGHT = 0.3
# A run that was given up would have taken at least so many times as long.
_GIVEN_UP = 2.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """Limits of one attempt.

    Attributes:
        exchange_s: longest wait of a node for one exchange with its peers.
        answer_s: longest wait of the coordinator for the nodes' answers.
    """

    exchange_s: float = _FIRST_EXCHANGE_S
    answer_s: float = _FIRST_ANSWER_S

    def of_node(self, *, exchanges: bool) -> float:
        """Return the longest wait of a node: for one exchange, or else for rows under way to it.

        The latter may take as long as the whole run on a slow link.
        """
        return self.exchange_s if exchanges else self.answer_s

    def later(self, seconds: float) -> Deadline:
        """Return these limits for nodes that may be stuck for so long before they begin."""
        return Deadline(self.exchange_s, self.answer_s + seconds)

    def at_most(self, seconds: float) -> Deadline:
        """Return these limits for a caller who waits no longer than that."""
        return Deadline(min(self.exchange_s, seconds), min(self.answer_s, seconds))


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a run is expected to take, and by which part of that runs like it scatter."""

    seconds: float
    spread: float = 0.0

    def deadline(self) -> Deadline:
        """Return the limits for such a run."""
        likely_s = self.seconds * (1.0 + self.spread)
        exchange_s = max(_LEAST_S, _EXCHANGE_PATIENCE * likely_s)
        answer_s = max(exchange_s, _PATIENCE * likely_s * (1.0 + self.spread))
        return Deadline(exchange_s, answer_s + _GRACE_S)


@dataclass(frozen=True, slots=True)
class _Runs:
    """What runs of one plan took, told at the size of the last."""

    batch: int
    length: int
    seconds: float
    spread: float


@dataclass(frozen=True, slots=True)
class RunTimes:
    """What the runs of every plan took, by plan with its nodes, and within it by size of the work.

    Runs of other sizes tell only of sizes that nothing else is known of. A single memory would grow
    without bound under large and small requests in turn: told up to the large one, it is far too
    long, and a small one does not say so.
    """

    plans: Mapping[str, Mapping[int, _Runs]] = field(default_factory=lambda: MappingProxyType({}))

    def expected(
        self, plan: str, batch: int, length: int, predicted_s: float | None = None
    ) -> Expectation | None:
        """Return what a run will take; None where neither runs nor a prediction tell."""
        sizes = self.plans.get(plan)
        if not sizes:
            return None if predicted_s is None else Expectation(predicted_s)
        size = _size(batch, length)
        runs = sizes[min(sizes, key=lambda known: abs(known - size))]
        return Expectation(max(predicted_s or 0.0, _scaled(runs, batch, length)), runs.spread)

    def took(self, plan: str, batch: int, length: int, seconds: float) -> RunTimes:
        """Return these times after a run."""
        runs = self._known(plan, batch, length)
        if runs is None:
            return self._with(plan, _Runs(batch, length, seconds, 0.0))
        believed_s = _scaled(runs, batch, length)
        moved_s = believed_s + _WEIGHT * (seconds - believed_s)
        off = abs(seconds - believed_s) / max(believed_s, 1e-9)
        spread = min(2.0, runs.spread + _WEIGHT * (off - runs.spread))
        return self._with(plan, _Runs(batch, length, moved_s, spread))

    def given_up(self, plan: str, batch: int, length: int, after_s: float) -> RunTimes:
        """Return these times after a run that was given up."""
        runs = self._known(plan, batch, length)
        spread = 0.0 if runs is None else runs.spread
        believed_s = 0.0 if runs is None else _scaled(runs, batch, length)
        longer_s = max(believed_s, _GIVEN_UP * after_s)
        return self._with(plan, _Runs(batch, length, longer_s, spread))

    def _known(self, plan: str, batch: int, length: int) -> _Runs | None:
        return self.plans.get(plan, {}).get(_size(batch, length))

    def _with(self, plan: str, runs: _Runs) -> RunTimes:
        sizes = {**self.plans.get(plan, {}), _size(runs.batch, runs.length): runs}
        return RunTimes(MappingProxyType({**self.plans, plan: MappingProxyType(sizes)}))


def _size(batch: int, length: int) -> int:
    """Return a number that is the same for works that differ by less than a factor of two."""
    return (batch * length).bit_length()


def _scaled(runs: _Runs, batch: int, length: int) -> float:
    """Return what a run of another size takes, rather too much than too little."""
    longer = max(1.0, length / runs.length)
    more = max(1.0, batch * length / (runs.batch * runs.length))
    return runs.seconds * more * longer  # attention grows with the square of the length
