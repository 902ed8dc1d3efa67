"""Map + links + load + objective -> plan. Pure: no clock, no socket, no model.

`traffic` knows what crosses a link, `strategies` what differs between them, `cost` predicts
measured plans, `precisions` derives them at others, `alone` says what each node takes and `shares`
splits by rows; `coverage` and `cost_model` gather them, `expected` judges runs by them. `links`,
`link_estimate` and `compute` tell links and nodes as they are now, `load` what they have to do.
`policy` chooses, `decision` is the answer, `sweep` finds where the choice changes; `coding` decides
whether images are compressed on their way.
"""

from prism.planner.answers import WHOLE, Wanted
from prism.planner.coding import ImageCoding
from prism.planner.compute import ComputeEstimate
from prism.planner.cost_model import CostModel
from prism.planner.coverage import LeftOut
from prism.planner.decision import Candidate, Decision
from prism.planner.link_estimate import LinkEstimate, LinkSample
from prism.planner.links import AnyLinks, Links
from prism.planner.load import Load
from prism.planner.parts import Cost
from prism.planner.policy import Lacking, Planner, decide
from prism.planner.precisions import covered_plans
from prism.planner.shares import solve_shares
from prism.planner.sweep import Crossover, Sweep, crossover_bps, sweep_bandwidth, sweep_batch

__all__ = [
    "AnyLinks",
    "Candidate",
    "ComputeEstimate",
    "Cost",
    "CostModel",
    "Crossover",
    "Decision",
    "ImageCoding",
    "Lacking",
    "LeftOut",
    "LinkEstimate",
    "LinkSample",
    "Links",
    "Load",
    "Planner",
    "Sweep",
    "WHOLE",
    "Wanted",
    "covered_plans",
    "crossover_bps",
    "decide",
    "solve_shares",
    "sweep_bandwidth",
    "sweep_batch",
]
