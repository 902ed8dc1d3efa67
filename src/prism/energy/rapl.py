"""The RAPL energy counters of x86 processors, through the powercap sysfs.

Each processor package has a counter of microjoules that wraps around. Packages are summed; their
sub-domains (core, dram) and `psys` are left out, since they overlap with the packages or exist on
some machines only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prism.energy.timeline import Sample
from prism.errors import ConfigError

# Reading takes microseconds, so it is read often: what is not yet read when a request ends is
# estimated. No wrap stays unseen: a 32-bit counter in steps of 2**-16 J spans 65 kJ, at 1 kW a
# minute.
PERIOD_S = 0.02
RESOLUTION_S = 0.001


@dataclass(slots=True)
class Package:
    """One processor package, with the total unwrapped so far."""

    name: str
    counter: Path
    range_uj: int
    last_uj: int
    total_uj: int = 0

    def advance(self) -> int:
        """Read the counter and return the microjoules since it was opened."""
        now_uj = int(self.counter.read_text())
        step_uj = now_uj - self.last_uj
        self.total_uj += step_uj if step_uj >= 0 else step_uj + self.range_uj
        self.last_uj = now_uj
        return self.total_uj


@dataclass(frozen=True, slots=True)
class Rapl:
    """A probe over all processor packages."""

    packages: tuple[Package, ...]
    period_s: float = PERIOD_S
    resolution_s: float = RESOLUTION_S

    @property
    def scope(self) -> str:
        """The packages, such as `package-0,package-1`."""
        return ",".join(package.name for package in self.packages)

    def sample(self) -> Sample:
        """Return the energy of all packages since they were opened."""
        return Sample(joules=sum(package.advance() for package in self.packages) * 1e-6)


def open_rapl(sysfs: Path) -> Rapl:
    """Open the package counters under `sysfs` (`/sys`).

    Raises:
        ConfigError: there are none, this user may not read them, or they stand at zero.
    """
    packages = []
    root = sysfs / "class/powercap"
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
            if name.startswith("package"):
                packages.append(_open_package(zone, name))
        except PermissionError as error:
            raise ConfigError(
                f"{error.filename} may not be read by this user; "
                f"run as root, or `sudo chmod a+r {root}/intel-rapl:*/energy_uj`"
            ) from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"the RAPL counter in {zone} cannot be read: {error}") from error
    if not packages:
        raise ConfigError(f"no RAPL package counter under {root}")
    for package in packages:
        if package.last_uj == 0:
            raise ConfigError(f"{package.counter} stands at 0, as it does in virtual machines")
    return Rapl(tuple(sorted(packages, key=lambda package: package.name)))


def _open_package(zone: Path, name: str) -> Package:
    counter = zone / "energy_uj"
    range_uj = int((zone / "max_energy_range_uj").read_text())
    return Package(name, counter, range_uj, int(counter.read_text()))
