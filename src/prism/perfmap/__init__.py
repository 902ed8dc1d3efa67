"""The performance map: what every plan cost on one cluster, in a file a person can read.

`schema` and `predicted` own the entries and their validation, `performance` the map as a whole,
`surface` the monotone interpolation between measured points, `files` reading and atomic writing,
`coding` what compressing images costs.
"""

from prism.perfmap.coding import CodingTimes
from prism.perfmap.performance import ClusterIdentity, PerformanceMap, load_example
from prism.perfmap.predicted import HeldOut, LeftOutPoint
from prism.perfmap.schema import (
    Accuracy,
    MapLink,
    Measurement,
    NodeInfo,
    Payload,
    Stat,
)
from prism.perfmap.surface import Surface

__all__ = [
    "Accuracy",
    "ClusterIdentity",
    "CodingTimes",
    "HeldOut",
    "LeftOutPoint",
    "MapLink",
    "Measurement",
    "NodeInfo",
    "Payload",
    "PerformanceMap",
    "Stat",
    "Surface",
    "load_example",
]
