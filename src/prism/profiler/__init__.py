"""The offline profile: measure few points, model the rest, write a performance map.

`target` says what the profiler needs of a cluster, `points` what is worth measuring, `forecast` how
long that takes, `selection` what comes first, `schedule` what of it fits into the `budget`, `turns`
in which order, `linkfit` fits the cost of an exchange, `passes` runs and notes, `partial` keeps
what was measured across interruptions, `result` makes the map, `profile` does it all.
"""

from prism.profiler.passes import Progress
from prism.profiler.points import Settings
from prism.profiler.profile import Profiler
from prism.profiler.target import ProfileTarget
from prism.profiler.turns import take_turns

__all__ = ["ProfileTarget", "Profiler", "Progress", "Settings", "take_turns"]
