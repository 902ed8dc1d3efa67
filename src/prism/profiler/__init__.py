"""The offline profile: measure few points, model the rest, write a performance map.

`bench` says what the profiler needs of a cluster, `points` chooses what to measure, `linkfit` fits
the cost of an exchange, `progress` keeps what was measured across interruptions, `sweep` does it.
"""

from prism.profiler.points import Settings
from prism.profiler.profile import Profiler, Progress
from prism.profiler.target import Bench

__all__ = ["Bench", "Profiler", "Progress", "Settings"]
