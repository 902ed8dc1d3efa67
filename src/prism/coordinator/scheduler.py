"""The schedule of a live cluster: requests take turns on nodes, and the planner sees the load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prism.coordinator import schedule
from prism.coordinator.schedule import Arrived, Left, Schedule
from prism.planner import Load


@dataclass(slots=True)
class _Turn:
    """One request's turn: what to call when it comes, and how long it may take."""

    nodes: tuple[str, ...]
    start: Callable[[], None]
    expected_s: float
    started_s: float | None = None


class Scheduler:
    """Gives requests their turns; safe to use from all threads."""

    def __init__(self) -> None:
        self._state = Schedule()
        self._turns: dict[int, _Turn] = {}
        self._lock = threading.Lock()

    def enter(
        self, number: int, nodes: Sequence[str], start: Callable[[], None], expected_s: float
    ) -> None:
        """Let a request wait for its nodes; `start` is called once, here or on another thread.

        Args:
            number: of the request; lower ones go first.
            nodes: all of which it needs.
            start: must not block.
            expected_s: how long it will hold the nodes, as far as anybody knows.
        """
        with self._lock:
            self._turns[number] = _Turn(tuple(nodes), start, expected_s)
            starting = self._step(Arrived(number, frozenset(nodes)))
        for turn in starting:
            turn.start()

    def leave(self, number: int) -> None:
        """Let a request give its nodes back, or its place in the line. Safe to call twice."""
        with self._lock:
            self._turns.pop(number, None)
            starting = self._step(Left(number))
        for turn in starting:
            turn.start()

    def occupied(self, node: str) -> bool:
        """Whether a node works on a request."""
        with self._lock:
            return node in self._state.occupied

    def others_run(self, number: int) -> bool:
        """Whether any other request is running."""
        with self._lock:
            return any(other != number for other in self._state.running)

    def load(self) -> Load:
        """Return when each node will be free, as far as anybody knows, and how many wait."""
        now_s = time.monotonic()
        free_in_s: dict[str, float] = {}
        with self._lock:
            for number in (*self._state.running, *self._state.waiting):
                turn = self._turns[number]
                begin_s = 0.0
                left_s = turn.expected_s
                if turn.started_s is None:
                    begin_s = max((free_in_s.get(node, 0.0) for node in turn.nodes), default=0.0)
                else:
                    left_s = max(0.0, turn.started_s + turn.expected_s - now_s)
                free_in_s.update(dict.fromkeys(turn.nodes, begin_s + left_s))
            return Load(free_in_s, len(self._state.waiting))

    def _step(self, event: schedule.Event) -> list[_Turn]:
        self._state, starts = schedule.step(self._state, event)
        turns = [self._turns[start.number] for start in starts]
        for turn in turns:
            turn.started_s = time.monotonic()
        return turns
