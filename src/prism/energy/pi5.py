"""The power management chip of the Raspberry Pi 5, through `vcgencmd pmic_read_adc`.

The chip measures current and voltage of the rails it produces. Their sum is a measurement of the
board's chips; what it does not see is the 5 V input itself: the converters' losses, USB devices,
the fan and other 5 V loads. So it is less than a wall meter shows, and the scope says so.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from prism.energy.timeline import Sample
from prism.errors import ClusterError, ConfigError

# Every sample starts a process, which costs energy itself: sample less often than a bare sensor.
PERIOD_S = 0.2
_TIMEOUT_S = 2.0
_VALUE = re.compile(r"(\w+)_([AV])(?:\s+\w+\(\d+\))?\s*=\s*(\d+(?:\.\d+)?)[AV]\b")


@dataclass(frozen=True, slots=True)
class Pi5:
    """A probe over the rails that the power management chip produces."""

    command: tuple[str, ...]
    period_s: float = PERIOD_S
    resolution_s: float = 0.0

    @property
    def scope(self) -> str:
        """What the rails cover."""
        return "PMIC rails (without converter losses, USB and 5 V loads)"

    def sample(self) -> Sample:
        """Run the command and sum its rails."""
        text = self._run()
        rails = rail_watts(text)
        if not rails:
            told = text.strip().splitlines()[0] if text.strip() else "nothing"
            raise ClusterError(f"{' '.join(self.command)} names no rails but says {told!r}")
        return Sample(watts=sum(rails.values()))

    def _run(self) -> str:
        line = " ".join(self.command)
        try:
            done = subprocess.run(
                self.command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except FileNotFoundError as error:
            raise ClusterError(f"{self.command[0]} is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{line} gave no answer within {_TIMEOUT_S:g} s") from error
        if done.returncode:
            told = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
            raise ClusterError(f"{line} failed: {told}")
        return done.stdout


def rail_watts(text: str) -> dict[str, float]:
    """Return the watts of each rail in the command's output that has both current and voltage."""
    values: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for rail, unit, value in _VALUE.findall(text):
        values[unit][rail] = float(value)
    return {
        rail: amperes * values["V"][rail]
        for rail, amperes in values["A"].items()
        if rail in values["V"]
    }


def open_pi5(command: Sequence[str]) -> Pi5:
    """Try the command once.

    Raises:
        ConfigError: it is missing, fails, or names no rails (every board but the Pi 5).
    """
    probe = Pi5(tuple(command))
    try:
        watts = probe.sample().watts
    except (ClusterError, OSError) as error:
        raise ConfigError(f"no Raspberry Pi 5 power readings: {error}") from error
    if not watts:
        raise ConfigError("the Raspberry Pi 5 power rails read 0 W")
    return probe
