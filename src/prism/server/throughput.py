"""How many rows a model answers per second, and so how long those that wait will take: pure."""

from __future__ import annotations

from dataclasses import dataclass

_WINDOW_S = 10.0
_SOONEST_S, _LATEST_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was answered lately.

    Attributes:
        answered: when batches ended, on the caller's clock, and their rows; the oldest first.
    """

    answered: tuple[tuple[float, int], ...] = ()

    def after(self, rows: int, now_s: float) -> Throughput:
        """Return the state after a batch has ended."""
        recent = (each for each in self.answered if each[0] > now_s - _WINDOW_S)
        return Throughput((*recent, (now_s, rows)))

    def retry_after_s(self, waiting_rows: int, now_s: float) -> float:
        """Return when so many waiting rows are likely answered, 1 to 60 s.

        Rows of the last ten seconds count; where there are none, nobody knows, and it is 1 s.
        """
        recent = [each for each in self.answered if each[0] > now_s - _WINDOW_S]
        rows = sum(rows for _, rows in recent)
        if not rows:
            return _SOONEST_S
        elapsed_s = max(now_s - recent[0][0], _SOONEST_S)
        return min(_LATEST_S, max(_SOONEST_S, waiting_rows * elapsed_s / rows))
