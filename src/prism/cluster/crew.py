"""The nodes of one cluster by name: who belongs to it, who is alive, in which order."""

from __future__ import annotations

from collections.abc import Sequence

from prism.cluster.head import Head
from prism.cluster.local import NodeProcess
from prism.core import Plan
from prism.errors import ClusterError, PlanError


class Crew:
    """The nodes of a cluster.

    Args:
        head: talks to the nodes.
        names: the nodes expected, the one on the head's own device first.
        processes: node processes started here, whose end is seen at once.
    """

    def __init__(self, head: Head, names: Sequence[str], processes: Sequence[NodeProcess]) -> None:
        self._head = head
        self._names = tuple(names)
        self._processes = tuple(processes)

    @property
    def alive(self) -> tuple[str, ...]:
        """Names of the nodes alive, the one on the head's own device first."""
        for process in self._processes:
            if not process.running:
                self._head.report_lost(process.name, process.pid, "its process ended")
        return self._ordered(self._head.alive)

    def bind(self, plan: Plan) -> Plan:
        """Return `plan` on named nodes, on those alive if it can be.

        A plan that the whole cluster could serve is bound to the whole cluster when too few are
        alive: its request is answered without those who are gone.

        Raises:
            ClusterError: nobody is alive.
            PlanError: the plan does not fit the cluster.
        """
        alive = self.alive
        if not alive:
            raise ClusterError("no node of the cluster is alive; start it again")
        try:
            return plan.on(alive)
        except PlanError:
            return plan.on(self._ordered((*self._names, *alive)))

    def _ordered(self, names: Sequence[str]) -> tuple[str, ...]:
        known = [name for name in self._names if name in names]
        return (*known, *(name for name in names if name not in self._names))
