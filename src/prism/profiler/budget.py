"""The time that a profile may take, and what is left of it."""

from __future__ import annotations

import math
from collections.abc import Callable


class Budget:
    """Counts down from the moment it is made.

    Args:
        limit_s: None = no limit.
        clock: seconds on a monotonic clock.

    Attributes:
        limit_s: infinite without a limit.
        reserved_s: kept back for what comes last.
    """

    def __init__(self, limit_s: float | None, clock: Callable[[], float]) -> None:
        self.limit_s = math.inf if limit_s is None else limit_s
        self.reserved_s = 0.0
        self._clock = clock
        self._started_s = clock()

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.limit_s < math.inf

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._started_s

    @property
    def left_s(self) -> float:
        """Seconds that may be spent now: not those reserved; negative when overdrawn."""
        return self.limit_s - self.elapsed_s - self.reserved_s
