"""The nodes of one cluster by name: who belongs to it, who is alive, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from prism.coordinator.coordinator import Coordinator


class Process(Protocol):
    """A node process started here, whose end can be seen at once."""

    name: str

    @property
    def pid(self) -> int:
        """Process id."""

    @property
    def running(self) -> bool:
        """Whether the process still lives."""


class Roster:
    """The nodes of a cluster.

    Args:
        coordinator: talks to the nodes.
        names: the nodes expected, the one on the coordinator's own device first.
        processes: node processes started here, whose end is seen at once.
    """

    def __init__(
        self, coordinator: Coordinator, names: Sequence[str], processes: Sequence[Process]
    ) -> None:
        self._coordinator = coordinator
        self._names = tuple(names)
        self._processes = tuple(processes)

    @property
    def helpers(self) -> tuple[str, ...]:
        """Names of the nodes alive that sit on other devices than the coordinator."""
        return tuple(name for name in self.alive if name != self._names[0])

    @property
    def alive(self) -> tuple[str, ...]:
        """Names of the nodes alive, the one on the coordinator's own device first."""
        for process in self._processes:
            if not process.running:
                self._coordinator.report_lost(process.name, process.pid, "its process ended")
        alive = self._coordinator.alive
        return tuple(name for name in self.everyone if name in alive)

    @property
    def everyone(self) -> tuple[str, ...]:
        """Names of all nodes expected or alive, in the cluster's order."""
        late = (name for name in self._coordinator.alive if name not in self._names)
        return (*self._names, *late)
