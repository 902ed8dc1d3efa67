"""What serves all models of one live cluster."""

from __future__ import annotations

from dataclasses import dataclass

from prism.coordinator.coordinator import Coordinator
from prism.coordinator.link_timing import LinkTimer
from prism.coordinator.requests import Requests
from prism.coordinator.roster import Roster
from prism.coordinator.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class LiveCluster:
    """The parts that models share.

    Attributes:
        coordinator: talks to the nodes.
        roster: knows them by name, in the cluster's order.
        scheduler: gives requests their turns.
        requests: answers them.
        timer: times links.
    """

    coordinator: Coordinator
    roster: Roster
    scheduler: Scheduler
    requests: Requests
    timer: LinkTimer
