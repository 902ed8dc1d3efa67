"""How long a request may take before its nodes are given up, from what earlier runs took."""

from __future__ import annotations

from dataclasses import dataclass, replace

_LEAST_S = 2.0
_GRACE_S = 2.0
_PATIENCE = 5.0  # a run may take so many times what it took before
# One exchange is a small part of a run, so this is more patient than it looks. It is also how long
# the others are stuck with a peer that froze.
_EXCHANGE_PATIENCE = 2.0
# Before a plan has run there is nothing to derive a deadline from. Nodes that die or freeze are
# noticed by their silence; these only end what is alive and stuck.
_FIRST_EXCHANGE_S = 30.0
_FIRST_ANSWER_S = 900.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """Limits of one attempt.

    Attributes:
        exchange_s: longest wait of a node for one exchange with its peers.
        answer_s: longest wait of the coordinator for the nodes' answers.
    """

    exchange_s: float = _FIRST_EXCHANGE_S
    answer_s: float = _FIRST_ANSWER_S

    def later(self, seconds: float) -> Deadline:
        """Return these limits for nodes that may be busy for so long before they begin."""
        return replace(self, answer_s=self.answer_s + seconds)


class Pace:
    """Remembers the last run of every plan."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int, float]] = {}

    def note(self, plan: str, batch: int, length: int, took_s: float) -> None:
        """Take note of a run."""
        self._last[plan] = (batch, length, took_s)

    def deadline(self, plan: str, batch: int, length: int) -> Deadline:
        """Return the limits for a run."""
        if plan not in self._last:
            return Deadline()
        known_batch, known_length, took_s = self._last[plan]
        longer = max(1.0, length / known_length)
        more = max(1.0, batch * length / (known_batch * known_length))
        expected_s = took_s * more * longer  # attention grows with the square of the length
        exchange_s = max(_LEAST_S, _EXCHANGE_PATIENCE * expected_s)
        return Deadline(exchange_s, max(exchange_s, _PATIENCE * expected_s) + _GRACE_S)
