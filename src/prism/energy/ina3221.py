"""The INA3221 power monitors on Jetson boards, through sysfs.

Two layouts exist: hwmon (JetPack 5 and later) with millivolts and milliamperes, and the older iio
one (JetPack 4) with milliwatts. Which rails there are differs by board; a board's input rail covers
the whole module and is preferred, otherwise the rails that do not feed each other are summed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prism.energy.timeline import Sample
from prism.errors import ConfigError

PERIOD_S = 0.05
_INPUT_RAILS = ("VDD_IN", "POM_5V_IN")
# Fed by VIN_SYS_5V0 on the AGX Orin: summing both would count it twice.
_NESTED_RAILS = frozenset({"VDDQ_VDD2_1V8AO"})
_CHANNELS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Rail:
    """One measured supply: its watts are `scale` times the product of the numbers in `files`."""

    label: str
    files: tuple[Path, ...]
    scale: float

    def watts(self) -> float:
        """Read the rail now."""
        return self.scale * math.prod(int(file.read_text()) for file in self.files)


@dataclass(frozen=True, slots=True)
class Ina3221:
    """A probe over the rails that together cover the most of the board.

    Attributes:
        rails: the rails that are summed.
    """

    rails: tuple[Rail, ...]
    period_s: float = PERIOD_S
    resolution_s: float = 0.0

    @property
    def scope(self) -> str:
        """The summed rails."""
        return "+".join(rail.label for rail in self.rails)

    def sample(self) -> Sample:
        """Return the power of the rails now."""
        return Sample(watts=sum(rail.watts() for rail in self.rails))


def open_ina3221(sysfs: Path) -> Ina3221:
    """Find the monitors under `sysfs` (`/sys`) and read them once.

    Raises:
        ConfigError: there are none, they cannot be read, or they read no power.
    """
    rails = list(find_rails(sysfs))
    if not rails:
        raise ConfigError(f"no INA3221 power monitor with rails under {sysfs}")
    by_label = {rail.label: rail for rail in rails}
    main = next((by_label[label] for label in _INPUT_RAILS if label in by_label), None)
    chosen = (main,) if main else tuple(r for r in rails if r.label not in _NESTED_RAILS)
    probe = Ina3221(chosen)
    try:
        watts = probe.sample().watts
    except PermissionError as error:
        raise ConfigError(f"{error.filename} may not be read by this user; run as root") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"the INA3221 rails {probe.scope} cannot be read: {error}") from error
    if not watts or watts < 0:
        raise ConfigError(f"the INA3221 rails {probe.scope} read {watts} W, so nothing is wired")
    return probe


def find_rails(sysfs: Path) -> Iterator[Rail]:
    """Yield every rail of every INA3221 under `sysfs`, both layouts, each chip once."""
    drivers = sysfs / "bus/i2c/drivers"
    hwmon = [*sysfs.glob("class/hwmon/hwmon*"), *drivers.glob("ina3221*/*/hwmon/hwmon*")]
    for chip in sorted({path.resolve() for path in hwmon}):
        if _text(chip / "name") == "ina3221":
            yield from _hwmon_rails(chip)
    for chip in sorted({path.resolve() for path in drivers.glob("ina3221*/*/iio:device*")}):
        yield from _iio_rails(chip)


def _hwmon_rails(chip: Path) -> Iterator[Rail]:
    # Only channels 1 to 3: the driver numbers shunt voltages and a sum of currents beyond them.
    for channel in _CHANNELS:
        label = _text(chip / f"in{channel}_label") or f"channel {channel}"
        if label == "NC" or _text(chip / f"in{channel}_enable") == "0":
            continue
        power = chip / f"power{channel}_input"
        pair = (chip / f"in{channel}_input", chip / f"curr{channel}_input")
        if power.exists():
            yield Rail(label, (power,), 1e-6)
        elif all(file.exists() for file in pair):
            yield Rail(label, pair, 1e-6)


def _iio_rails(chip: Path) -> Iterator[Rail]:
    for channel in range(len(_CHANNELS)):
        label, power = _text(chip / f"rail_name_{channel}"), chip / f"in_power{channel}_input"
        if label not in ("", "NC") and power.exists():
            yield Rail(label, (power,), 1e-3)


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
