"""NVIDIA GPUs through NVML (the optional package `nvidia-ml-py`, imported as `pynvml`).

Volta and later count energy themselves; older ones only tell power, which is integrated. Power
also serves windows shorter than the counter's step, as an estimate: NVML averages it over time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prism.energy.timeline import Sample
from prism.errors import ClusterError, ConfigError

PERIOD_S = 0.05
# NVML documents no step for its counter; it is not trusted with windows shorter than this.
RESOLUTION_S = 0.1
_MILLI = 1e-3


@dataclass(frozen=True, slots=True)
class Nvml:
    """A probe over one GPU board.

    Attributes:
        energy_mj: reads the board's energy counter; None where the GPU has none.
        power_mw: reads the board's power; None where the GPU does not tell.
        failure: the exception type of the library.
    """

    scope: str
    energy_mj: Callable[[], int] | None
    power_mw: Callable[[], int] | None
    failure: type[Exception]
    period_s: float = PERIOD_S
    resolution_s: float = RESOLUTION_S

    def sample(self) -> Sample:
        """Read the counter and the power, whichever exist."""
        try:
            return Sample(
                joules=None if self.energy_mj is None else self.energy_mj() * _MILLI,
                watts=None if self.power_mw is None else self.power_mw() * _MILLI,
            )
        except self.failure as error:
            raise ClusterError(f"NVML: {error}") from error


def open_nvml(gpu: str, library: Any = None) -> Nvml:
    """Open one GPU.

    Args:
        gpu: its NVML index or its UUID.
        library: the `pynvml` module; None imports it.

    Raises:
        ConfigError: no library, driver or such GPU, or it tells neither energy nor power.
    """
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError as error:
            raise ConfigError("NVML needs the package nvidia-ml-py; pip install it") from error
    try:
        library.nvmlInit()
        if gpu.isdecimal():
            handle = library.nvmlDeviceGetHandleByIndex(int(gpu))
        else:
            handle = library.nvmlDeviceGetHandleByUUID(gpu)
        name = library.nvmlDeviceGetName(handle)
    except library.NVMLError as error:
        raise ConfigError(f"NVML cannot open GPU {gpu}: {error}") from error
    energy = _supported(library, library.nvmlDeviceGetTotalEnergyConsumption, handle)
    power = _supported(library, library.nvmlDeviceGetPowerUsage, handle)
    if energy is None and power is None:
        raise ConfigError(f"NVML tells neither energy nor power of GPU {gpu} ({name})")
    return Nvml(f"GPU {gpu} ({name}), board only", energy, power, library.NVMLError)


def _supported(
    library: Any, function: Callable[[Any], int], handle: Any
) -> Callable[[], int] | None:
    try:
        function(handle)
    except library.NVMLError:
        return None
    return lambda: function(handle)
