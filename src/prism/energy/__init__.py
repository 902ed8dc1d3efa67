"""Energy of a stretch of work on one node: joules, what they cover, and how well they are known.

    meter = prism.energy.meter("auto", node="nano1")
    with meter.window() as window:
        run()
    window.reading.joules      # or None, with window.reading.reason; never 0 for "unknown"

`reading` holds the results and their sum over nodes, `window` the way to ask for them. `sampler`
reads a probe (`ina3221`, `nvml`, `rapl`, `pi5`) in the background, `timeline` computes energy from
its samples, `power_model` and `replay` stand in where no sensor exists, and `choose` reads the
configuration text and finds what works on this machine.
"""

from prism.energy.choose import Detection, Host, Skipped, detect, meter
from prism.energy.reading import ClusterEnergy, EnergyReading, combine
from prism.energy.window import EnergyMeter, Window

__all__ = [
    "ClusterEnergy",
    "Detection",
    "EnergyMeter",
    "EnergyReading",
    "Host",
    "Skipped",
    "Window",
    "combine",
    "detect",
    "meter",
]
