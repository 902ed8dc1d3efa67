"""The nodes of one cluster by name: who belongs to it, who is alive, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from prism.coordinator.coordinator import Coordinator
from prism.errors import ClusterError, PlanError
from prism.plan import Plan


class Process(Protocol):
    """A node process started here, whose end can be seen at once."""

    name: str

    @property
    def pid(self) -> int:
        """Process id."""

    @property
    def running(self) -> bool:
        """Whether the process still lives."""


class Placed(NamedTuple):
    """A plan and the nodes that run it, rank 0 first."""

    plan: Plan
    nodes: tuple[str, ...]


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
    def alive(self) -> tuple[str, ...]:
        """Names of the nodes alive, the one on the coordinator's own device first."""
        for process in self._processes:
            if not process.running:
                self._coordinator.report_lost(process.name, process.pid, "its process ended")
        return self._ordered(self._coordinator.alive)

    def place(self, plan: Plan) -> Placed:
        """Put `plan` on nodes, on those alive if it can be.

        A plan that the whole cluster could serve is placed on the whole cluster when too few are
        alive: its request is answered without those who are gone.

        Raises:
            ClusterError: nobody is alive.
            PlanError: the plan does not fit the cluster.
        """
        alive = self.alive
        if not alive:
            raise ClusterError("no node of the cluster is alive; start it again")
        try:
            return _placed(plan, alive)
        except PlanError:
            return _placed(plan, self._ordered((*self._names, *alive)))

    def _ordered(self, names: Sequence[str]) -> tuple[str, ...]:
        known = [name for name in self._names if name in names]
        return (*known, *(name for name in names if name not in self._names))


def _placed(plan: Plan, names: Sequence[str]) -> Placed:
    return Placed(plan.on(names), plan.place(names))
