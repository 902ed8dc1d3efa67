"""Machines made of files: sysfs trees of known boards, with a clock and a sampler moved by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prism.energy.timeline import Timeline
from prism.errors import ClusterError


class HandClock:
    """Seconds that pass only when a test says so."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class HandSampler:
    """Reads a probe where a window begins and ends, and when a test says so; has no thread."""

    def __init__(self, probe, clock) -> None:  # type: ignore[no-untyped-def]
        self._probe, self._clock = probe, clock
        self._timeline = Timeline(probe.scope, probe.resolution_s)
        self.scope = probe.scope

    def tick(self) -> None:
        before_s = self._clock()
        try:
            sample = self._probe.sample()
        except (OSError, ValueError, ClusterError) as error:
            self._timeline.fail(str(error))
        else:
            self._timeline.add((before_s + self._clock()) / 2, sample)

    def begin(self):  # type: ignore[no-untyped-def]
        begin = self._timeline.mark(self._clock())
        self.tick()

        def finish(busy):  # type: ignore[no-untyped-def]
            end = self._timeline.mark(self._clock())
            self.tick()
            return lambda: self._timeline.reading(begin, end)

        return finish


def write_files(root: Path, values: Mapping[str, object]) -> Path:
    """Write one small file per entry below `root`, as sysfs shows them."""
    for name, value in values.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return root


def hwmon_chip(
    sysfs: Path, number: int, rails: Mapping[str, tuple[int, int]], name: str = "ina3221"
) -> Path:
    """Add a hwmon chip with rails of (millivolts, milliamperes), and the driver's extra files."""
    values: dict[str, object] = {"name": name, "in4_input": 40, "curr4_input": 9999}
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        values |= {
            f"in{channel}_label": label,
            f"in{channel}_input": millivolts,
            f"curr{channel}_input": milliamperes,
            f"in{channel}_enable": 1,
        }
    return write_files(sysfs / f"class/hwmon/hwmon{number}", values)


def rapl_zone(
    sysfs: Path, zone: str, name: str, energy_uj: int, range_uj: int = 262_143_328_850
) -> Path:
    """Add a powercap zone and return its counter file."""
    root = sysfs / f"class/powercap/intel-rapl:{zone}"
    write_files(root, {"name": name, "max_energy_range_uj": range_uj, "energy_uj": energy_uj})
    return root / "energy_uj"
