"""Leaving alone for a while what failed: pure, the time comes in with every question.

Whatever fails again right after its pause is left alone twice as long. A success ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong with one plan or node.

    Attributes:
        reason: what happened last, in words that follow the name of the thing.
        failures: in a row.
        until_s: on the clock of the caller; from then on it may be tried once more.
    """

    reason: str
    failures: int
    until_s: float


@dataclass(frozen=True, slots=True)
class Backoff:
    """All that failed and has not worked since, by plan shape or node name."""

    troubles: Mapping[str, Trouble] = field(default_factory=lambda: MappingProxyType({}))

    def failed(self, key: str, reason: str, now_s: float) -> Backoff:
        """Return the state after `key` failed."""
        before = self.troubles.get(key)
        failures = 1 if before is None else before.failures + 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30))
        trouble = Trouble(reason, failures, now_s + pause_s)
        return Backoff(MappingProxyType({**self.troubles, key: trouble}))

    def worked(self, key: str) -> Backoff:
        """Return the state after `key` worked, or is another one by now."""
        if key not in self.troubles:
            return self
        kept = {other: trouble for other, trouble in self.troubles.items() if other != key}
        return Backoff(MappingProxyType(kept))

    def paused(self, now_s: float) -> Mapping[str, str]:
        """Return what is to be left alone now, each with a sentence that says why."""
        return {
            key: _sentence(trouble, now_s)
            for key, trouble in self.troubles.items()
            if trouble.until_s > now_s
        }


def _sentence(trouble: Trouble, now_s: float) -> str:
    times = "" if trouble.failures == 1 else f", {trouble.failures} times in a row"
    return f"{trouble.reason}{times}; tried again in {trouble.until_s - now_s:.0f} s"
