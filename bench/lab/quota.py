"""How much of the processor a board may use: a control group with a quota, version 1 or 2."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from prism.errors import ConfigError

# Short, so that a board is slow rather than fast and then stopped.
_PERIOD_US = 10_000
_LEAST_QUOTA_US = 1_000
_GONE_TIMEOUT_S = 3.0
_WAY_OUT = "leave --cpu out, or run on a machine where root may set CPU quotas"


class CpuQuota:
    """A control group whose members together use so much of a core.

    Args:
        name: of the group; made at once.
        cores: 0.4 = two fifths of one core.

    Raises:
        ConfigError: this machine lets nobody set a quota; says why.
    """

    def __init__(self, name: str, cores: float) -> None:
        version, parent = _cpu_groups_here()
        self._directory = parent / name
        self._home = parent / group_of_process(version, Path("/proc/self/cgroup").read_text())
        try:
            if version == 2:
                (parent / "cgroup.subtree_control").write_text("+cpu")
            self._directory.mkdir()
            for file, text in limits(version, cores).items():
                (self._directory / file).write_text(text)
        except OSError as error:
            self.close()
            raise ConfigError(
                f"a CPU quota cannot be set in {parent} ({error.strerror}); {_WAY_OUT}"
            ) from error

    @contextlib.contextmanager
    def limiting_this_process(self) -> Iterator[None]:
        """Be a member for a while."""
        members_of(self._directory.name).write_text(str(os.getpid()))
        try:
            yield
        finally:
            (self._home / "cgroup.procs").write_text(str(os.getpid()))

    def close(self) -> None:
        """Remove the group, once its members have ended. Safe to call twice."""
        remove_group(self._directory.name)


def members_of(name: str) -> Path:
    """Return the file of a group to which a process id is written to limit that process."""
    return _cpu_groups_here()[1] / name / "cgroup.procs"


def remove_group(name: str) -> None:
    """Remove a group, once its members have ended, which takes the kernel a moment.

    Safe to call twice.
    """
    directory = _cpu_groups_here()[1] / name
    until_s = time.monotonic() + _GONE_TIMEOUT_S
    while directory.is_dir():
        try:
            directory.rmdir()
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.02)


def _cpu_groups_here() -> tuple[int, Path]:
    return cpu_groups(Path("/proc/self/mounts").read_text())


def cpu_groups(mounts: str) -> tuple[int, Path]:
    """Return which version of control groups rules the processor, and their directory.

    Args:
        mounts: the text of /proc/mounts.

    Raises:
        ConfigError: neither does.
    """
    second = None
    for line in mounts.splitlines():
        _, directory, kind, options, *_ = line.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            return 1, Path(directory)
        if kind == "cgroup2":
            second = Path(directory)
    if second is None:
        raise ConfigError(f"there are no control groups for the processor here; {_WAY_OUT}")
    return 2, second


def group_of_process(version: int, memberships: str) -> str:
    """Return the group that rules a process's use of the processor, relative to the root group.

    Args:
        version: of the control groups.
        memberships: the text of /proc/PID/cgroup.
    """
    for line in memberships.splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "" if version == 2 else "cpu" in controllers.split(","):
            return group.lstrip("/")
    return ""


def limits(version: int, cores: float) -> dict[str, str]:
    """Return what to write, by file, so that a group uses `cores` of a core at most."""
    # The kernel takes no quota below 1 ms, so a very slow board has a longer period.
    period_us = max(_PERIOD_US, round(_LEAST_QUOTA_US / cores))
    quota_us = round(cores * period_us)
    if version == 2:
        return {"cpu.max": f"{quota_us} {period_us}"}
    return {"cpu.cfs_period_us": str(period_us), "cpu.cfs_quota_us": str(quota_us)}
