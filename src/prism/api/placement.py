"""The nodes of a cluster: what they are, where a named plan runs, and what stands in its way."""

from __future__ import annotations

from prism.coordinator.experience import Experience
from prism.coordinator.live import LiveCluster
from prism.coordinator.loading import ModelNodes
from prism.coordinator.recovery import Placed, place
from prism.coordinator.roster import Roster
from prism.errors import ClusterError, PlanError
from prism.perfmap import ClusterIdentity, NodeInfo
from prism.plan import Plan


def identity_of(live: LiveCluster, nodes: ModelNodes, dtype: str) -> ClusterIdentity:
    """Return what a performance map of a model on the nodes alive is bound to.

    Args:
        live: the cluster.
        nodes: who has the model.
        dtype: of its weights.
    """
    facts = {name: live.coordinator.hello(name).facts for name in live.roster.alive}
    infos = (
        NodeInfo(
            name=name,
            hardware=each.hardware,
            torch=each.torch,
            transformers=each.transformers,
            dtype=dtype,
            threads=each.threads,
            backend=nodes.backend(name),
        )
        for name, each in facts.items()
    )
    return ClusterIdentity(nodes.fingerprint, tuple(infos))


class Placement:
    """Puts the plans of one model on the nodes of its cluster.

    Args:
        roster: who is there.
        nodes: who has the model.
        experience: of the model: which plans are left alone for a while.
    """

    def __init__(self, roster: Roster, nodes: ModelNodes, experience: Experience) -> None:
        self._roster = roster
        self._nodes = nodes
        self._experience = experience

    def of(self, plan: Plan, until_s: float) -> Placed:
        """Put a plan on nodes that are ready, or on those of the whole cluster when it needs them.

        Nodes that have the model, but not at the plan's precision, make it first.

        Args:
            plan: that a caller named.
            until_s: on `time.monotonic()`, how long a precision may be waited for.

        Raises:
            PlanError: the plan does not fit the cluster.
            UnsupportedPrecision: a node cannot have the plan's precision.
            ClusterError: nobody is alive.
        """
        if not self._roster.alive:
            raise ClusterError("no node of the cluster is alive; start it again")
        try:
            placed = place(plan, self._nodes.ready(self._roster.alive))
        except PlanError:
            placed = place(plan, self._roster.everyone)
            # The request is answered without those who are gone, but not without one that just
            # came.
            self._nodes.welcome(placed.nodes)
        self._nodes.provide(plan.precision, placed.nodes, until_s)
        try:
            return place(plan, self._nodes.ready(self._roster.alive, plan.precision))
        except PlanError:
            return placed

    def obstacle(self, placed: Placed, *, chosen: bool) -> str:
        """Return why a plan cannot be tried, or nothing.

        Args:
            placed: the plan and its nodes.
            chosen: whether the planner chose it, who knows what is paused.
        """
        for name in placed.nodes:
            if name not in self._roster.alive:
                return f"{name} is not in the cluster"
        for name, reason in self._nodes.missing(placed.nodes, placed.plan.precision).items():
            return f"{name} does not have the model: {reason}"
        return "" if chosen else self._experience.paused().get(placed.plan.shape, "")
