"""The offline profile: measure few points, model the rest, write a performance map.

`target` says what the profiler needs of a cluster, `points` chooses what to measure, `turns` in
which order, `linkfit` fits the cost of an exchange, `partial` keeps what was measured across
interruptions, `profile` does it.
"""

from prism.profiler.points import Settings
from prism.profiler.profile import Profiler, Progress
from prism.profiler.target import ProfileTarget
from prism.profiler.turns import take_turns

__all__ = ["ProfileTarget", "Profiler", "Progress", "Settings", "take_turns"]
