"""Which reader a node uses: the configuration text, and detection of what works here.

auto | none | ina3221 | nvml[:GPU] | rapl | pi5 | model:idle=WATTS,busy=WATTS | replay:FILE
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism.energy.ina3221 import open_ina3221
from prism.energy.nvml import open_nvml
from prism.energy.pi5 import open_pi5
from prism.energy.power_model import NoReader, PowerModel
from prism.energy.rapl import open_rapl
from prism.energy.replay import Replay, read_trace
from prism.energy.sampler import Probe, Sampler
from prism.energy.window import EnergyMeter, Source
from prism.errors import ConfigError

# Whole boards first, then parts of a machine.
SENSORS = ("ina3221", "pi5", "nvml", "rapl")
_FORMS = (
    "use auto, none, ina3221, nvml, nvml:GPU, rapl, pi5, model:idle=WATTS,busy=WATTS or replay:FILE"
)


@dataclass(frozen=True, slots=True)
class Host:
    """The machine as the readers see it; tests and containers give another one.

    Attributes:
        sysfs: root of the kernel's device files.
        boot_id: file that identifies the running machine, also across containers.
        vcgencmd: the command that reads a Raspberry Pi's power rails.
        environ: the process environment, for CUDA_VISIBLE_DEVICES.
        nvml: the `pynvml` module; None imports it.
        clock: seconds that only grow.
    """

    sysfs: Path = Path("/sys")
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")
    vcgencmd: tuple[str, ...] = ("vcgencmd", "pmic_read_adc")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    nvml: Any = None
    clock: Callable[[], float] = time.monotonic

    def identity(self) -> str:
        """Return what tells this machine from every other one that runs now."""
        try:
            return self.boot_id.read_text().strip()
        except OSError:
            return platform.node()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A reader that does not work here, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Detection:
    """The first reader that works, and those before it that do not."""

    meter: EnergyMeter
    skipped: tuple[Skipped, ...]


def detect(*, node: str = "", device: str | None = None, host: Host | None = None) -> Detection:
    """Return a meter over the first sensor that works; over none, with all reasons, if none does.

    Args:
        node: name of the node, for scopes.
        device: where the model runs (`cpu`, `cuda`, `cuda:1`); a GPU's sensor says nothing about
            work on the CPU, so `cpu` passes NVML over.
        host: the machine; default this one.
    """
    host = host or Host()
    skipped: list[Skipped] = []
    for name in SENSORS:
        if name == "nvml" and device is not None and not device.startswith("cuda"):
            skipped.append(Skipped(name, f"the model runs on {device}, not on an NVIDIA GPU"))
            continue
        try:
            return Detection(_sensor(name, "", node, device, host), tuple(skipped))
        except ConfigError as error:
            skipped.append(Skipped(name, str(error)))
    reasons = "; ".join(f"{item.name}: {item.reason}" for item in skipped)
    none = NoReader(f"no energy sensor works here ({reasons})", clock=host.clock)
    return Detection(EnergyMeter("none", none, node=node), tuple(skipped))


def meter(
    text: str, *, node: str = "", device: str | None = None, host: Host | None = None
) -> EnergyMeter:
    """Return the meter that a configuration text asks for; the grammar is in the module docstring.

    Raises:
        ConfigError: the text is malformed, or the reader it names does not work here, with why.
    """
    host = host or Host()
    name, _, options = (part.strip() for part in text.partition(":"))
    if name in SENSORS and (not options or name == "nvml"):
        try:
            return _sensor(name, options, node, device, host)
        except ConfigError as error:
            raise ConfigError(
                f"energy meter {text!r} does not work here: {error}; "
                "or use auto, model:idle=WATTS,busy=WATTS or none"
            ) from error
    if name == "auto" and not options:
        return detect(node=node, device=device, host=host).meter
    return EnergyMeter(name, _stand_in(text, name, options, host), node=node)


def _stand_in(text: str, name: str, options: str, host: Host) -> Source:
    """Return the source of a configuration text that names no sensor."""
    if name == "model":
        return PowerModel(*_model_watts(text, options), clock=host.clock)
    if name == "replay" and options:
        return Replay(read_trace(Path(options)), scope=f"replay of {options}", clock=host.clock)
    if name == "none" and not options:
        return NoReader("energy metering is switched off", clock=host.clock)
    raise ConfigError(f"{text!r} is no energy meter; {_FORMS}")


def _sensor(name: str, gpu: str, node: str, device: str | None, host: Host) -> EnergyMeter:
    probe: Probe
    if name == "ina3221":
        probe = open_ina3221(host.sysfs)
    elif name == "nvml":
        probe = open_nvml(gpu or _visible_gpu(device, host), host.nvml)
    elif name == "rapl":
        probe = open_rapl(host.sysfs)
    else:
        assert name == "pi5", name
        probe = open_pi5(host.vcgencmd)
    domain = f"{host.identity()}/{name}/{probe.scope}"
    return EnergyMeter(name, Sampler(probe, clock=host.clock), node=node, domain=domain)


def _visible_gpu(device: str | None, host: Host) -> str:
    """Return the NVML index or UUID of the GPU that this process calls `device`.

    NVML ignores CUDA_VISIBLE_DEVICES, so without this the wrong board would be read.
    """
    _, _, index = (device or "cuda:0").partition(":")
    visible = [gpu.strip() for gpu in host.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    place = int(index) if index.isdecimal() else 0
    return visible[place] if place < len(visible) and visible[place] else str(place)


def _model_watts(text: str, options: str) -> tuple[float, float]:
    watts: dict[str, float] = {}
    for option in options.split(","):
        key, _, value = (part.strip() for part in option.partition("="))
        if key not in ("idle", "busy") or key in watts:
            raise ConfigError(f"energy meter {text!r}: {option!r} is not one of idle=, busy=")
        try:
            watts[key] = float(value)
        except ValueError as error:
            raise ConfigError(f"energy meter {text!r}: {value!r} is no number of watts") from error
    if len(watts) != 2:
        raise ConfigError(f"energy meter {text!r} needs both, as in model:idle=2.5,busy=7")
    return watts["idle"], watts["busy"]
