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


def identity_of(live: LiveCluster, fingerprint: str, dtype: str) -> ClusterIdentity:
    """Return what a performance map of a model on the nodes alive is bound to.

    Args:
        live: the cluster.
        fingerprint: of the model.
        dtype: of its weights.
    """
    facts = {name: live.coordinator.hello(name).facts for name in live.roster.alive}
    nodes = (
        NodeInfo(
            name=name,
            hardware=each.hardware,
            torch=each.torch,
            transformers=each.transformers,
            dtype=dtype,
            threads=each.threads,
        )
        for name, each in facts.items()
    )
    return ClusterIdentity(fingerprint, tuple(nodes))


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

    def of(self, plan: Plan) -> Placed:
        """Put a plan on nodes that are ready, or on those of the whole cluster when it needs them.

        Raises:
            PlanError: the plan does not fit the cluster.
            ClusterError: nobody is alive.
        """
        if not self._roster.alive:
            raise ClusterError("no node of the cluster is alive; start it again")
        try:
            return place(plan, self._ready)
        except PlanError:
            placed = place(plan, self._roster.everyone)
        # The request is answered without those who are gone, but not without one that just came.
        self._nodes.welcome(placed.nodes)
        try:
            return place(plan, self._ready)
        except PlanError:
            return placed

    def obstacle(self, placed: Placed, *, chosen: bool) -> str:
        """Return why a plan cannot be tried, or nothing.

        Args:
            placed: the plan and its nodes.
            chosen: whether the planner chose it, who knows what is paused.
        """
        ready, alive = self._ready, self._roster.alive
        for name in placed.nodes:
            if name not in alive:
                return f"{name} is not in the cluster"
            if name not in ready:
                reason = self._nodes.refusals().get(name, "it is loading")
                return f"{name} does not have the model: {reason}"
        return "" if chosen else self._experience.paused().get(placed.plan.shape, "")

    @property
    def _ready(self) -> tuple[str, ...]:
        return self._nodes.ready(self._roster.alive)
