"""Map + link + objective -> plan. Pure: no clock, no socket, no model.

`exchange` knows what crosses the link, `cost` predicts measured plans, `shares` splits by rows,
`model` gathers both, `links` tells the link as it is now, `policy` chooses, `sweep` finds where
the choice changes.
"""

from prism.planner.cost import Cost
from prism.planner.cost_model import CostModel, LeftOut
from prism.planner.links import LinkEstimate, LinkSample
from prism.planner.policy import Candidate, Decision, Planner, decide
from prism.planner.shares import solve_shares
from prism.planner.sweep import Crossover, Sweep, crossover_bps, sweep_bandwidth, sweep_batch

__all__ = [
    "Candidate",
    "Cost",
    "CostModel",
    "Crossover",
    "Decision",
    "LeftOut",
    "LinkEstimate",
    "LinkSample",
    "Planner",
    "Sweep",
    "crossover_bps",
    "decide",
    "solve_shares",
    "sweep_bandwidth",
    "sweep_batch",
]
