"""Energy without a sensor: a two-point power model, and the honest absence of any."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from prism.energy.reading import EnergyReading, unknown
from prism.energy.window import Busy, Finish
from prism.errors import ConfigError


class PowerModel:
    """A source that multiplies time by typical watts; always an estimate.

    Energy is `idle_w` for the whole window plus `busy_w - idle_w` for its busy part, which the
    window's owner tells; a window of which nothing is told counts as all busy.
    """

    def __init__(
        self, idle_w: float, busy_w: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the watts of an idle and of a fully busy node.

        Raises:
            ConfigError: not 0 <= idle_w <= busy_w, or busy_w is 0.
        """
        if not (math.isfinite(busy_w) and 0 <= idle_w <= busy_w and busy_w > 0):
            raise ConfigError(
                f"a power model needs 0 <= idle <= busy watts and busy above 0, "
                f"not idle={idle_w:g}, busy={busy_w:g}"
            )
        self._idle_w = idle_w
        self._busy_w = busy_w
        self._clock = clock

    @property
    def scope(self) -> str:
        """The model's two powers."""
        return f"model idle={self._idle_w:g} W, busy={self._busy_w:g} W"

    def begin(self) -> Finish:
        """Start a stretch of time."""
        start_s = self._clock()

        def finish(busy: Busy) -> Callable[[], EnergyReading]:
            duration_s = self._clock() - start_s
            return lambda: self._reading(duration_s, busy)

        return finish

    def _reading(self, duration_s: float, busy: Busy) -> EnergyReading:
        if duration_s <= 0:
            return unknown(self.scope, duration_s, "the window had no duration")
        busy_s = busy.within(duration_s)
        joules = self._idle_w * (duration_s - busy_s) + self._busy_w * busy_s
        return EnergyReading(joules, self.scope, "estimated", duration_s)


class NoReader:
    """A source that knows nothing and says why."""

    scope = "none"

    def __init__(self, reason: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the reason that every reading will carry."""
        self._reason = reason
        self._clock = clock

    def begin(self) -> Finish:
        """Start a stretch of time."""
        start_s = self._clock()

        def finish(busy: Busy) -> Callable[[], EnergyReading]:
            del busy  # whatever the load was
            reading = unknown(self.scope, self._clock() - start_s, self._reason)
            return lambda: reading

        return finish
