"""How it is with the nodes of one model now: what a server, a display or a metric shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from prism.coordinator.experience import Experience
from prism.coordinator.live import LiveCluster
from prism.coordinator.loading import ModelNodes
from prism.planner import Load
from prism.record import LinkState

NodeState = Literal["ready", "loading", "left_out", "lost"]


class Condition:
    """The nodes of one model, their links and their work; every property asks anew.

    Args:
        live: the cluster.
        nodes: who has the model.
        experience: of the model.
    """

    def __init__(self, live: LiveCluster, nodes: ModelNodes, experience: Experience) -> None:
        self._live = live
        self._nodes = nodes
        self._experience = experience

    @property
    def adaptive(self) -> bool:
        """Whether a performance map chooses the plan of requests that name none."""
        return self._experience.adaptive is not None

    @property
    def load(self) -> Load:
        """What the nodes have to do, for other models too."""
        return self._live.scheduler.load()

    @property
    def idle(self) -> tuple[str, ...]:
        """Names of the nodes that have the model and nothing to do, in the cluster's order."""
        taken = self._live.scheduler.load().free_in_s
        ready = self._nodes.ready(self._live.roster.alive)
        return tuple(name for name in ready if name not in taken)

    @property
    def states(self) -> Mapping[str, NodeState]:
        """By name of every node of the cluster, whether it can work on the model."""
        alive = self._live.roster.alive
        ready, refusals = self._nodes.ready(alive), self._nodes.refusals()
        states: dict[str, NodeState] = dict.fromkeys(self._live.roster.everyone, "lost")
        for name in alive:
            states[name] = "left_out" if name in refusals else "loading"
        return {**states, **dict.fromkeys(ready, "ready")}

    @property
    def links(self) -> Mapping[str, LinkState]:
        """By helper, what is believed about the link to it; empty without a performance map."""
        adaptive = self._experience.adaptive
        return {} if adaptive is None else adaptive.links

    @property
    def paused(self) -> Mapping[str, str]:
        """By shape of a plan or name of a node that is left alone for a while, the reason."""
        return self._experience.paused()
