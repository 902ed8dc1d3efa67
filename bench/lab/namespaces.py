"""Network namespaces by their names: made, entered and removed with what runs in them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

from bench.lab.shape import DEVICE, PREFIX_BITS, Board

from prism.errors import ClusterError, ConfigError

WAY_OUT = "use an emulated link: prism's option --link 100mbit,3ms, and the benchmarks in bench/"
_DIRECTORY = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_GRACE_S = 3.0


def check_rights() -> None:
    """Check that this process may make namespaces.

    Raises:
        ConfigError: it may not, or what it takes is not installed.
    """
    if os.geteuid() != 0:
        raise ConfigError(
            f"a lab needs root for its network namespaces: run with sudo, or {WAY_OUT}"
        )
    if shutil.which("ip") is None:
        raise ConfigError(f"a lab needs the command ip: install iproute2, or {WAY_OUT}")


def ip(*arguments: str, within: str | None = None) -> str:
    """Run `ip`, in a namespace if one is named; return what it printed.

    Raises:
        ClusterError: it failed; says what it was and why.
    """
    return command("ip", *(["-n", within] if within else []), *arguments)


def command(*words: str) -> str:
    """Run a command to its end; return what it printed.

    Raises:
        ClusterError: it failed; says what it was and why.
    """
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().replace("\n", "; ")
        raise ClusterError(f"{' '.join(words)} failed: {said}")
    return done.stdout


def add(name: str) -> None:
    """Make a namespace, its loopback up.

    Raises:
        ConfigError: root is not enough here, as in a container without CAP_NET_ADMIN.
    """
    try:
        ip("netns", "add", name)
    except ClusterError as error:
        raise ConfigError(
            f"network namespaces cannot be made here ({error}): run with sudo on a machine that "
            f"allows it, or {WAY_OUT}"
        ) from error
    ip("link", "set", "lo", "up", within=name)


def configure(name: str, board: Board) -> None:
    """Give a board's device its address and switch it on."""
    ip("addr", "add", f"{board.address}/{PREFIX_BITS}", "dev", DEVICE, within=name)
    ip("link", "set", DEVICE, "up", within=name)
    # What boards use unless somebody changed it. Where this machine uses another one, such as one
    # that paces what it sends, messages would take longer than on boards.
    with contextlib.suppress(ClusterError):  # a kernel without it
        network = ip_interface(f"{board.address}/{PREFIX_BITS}").network
        route = f"{network} dev {DEVICE} scope link proto kernel src {board.address}"
        ip("route", "change", *route.split(), "congctl", "cubic", within=name)


def path_of(name: str) -> Path:
    """Return the file that stands for a namespace."""
    return _DIRECTORY / name


def exists(name: str) -> bool:
    """Whether there is a namespace of that name."""
    return path_of(name).exists()


def processes_in(name: str) -> list[int]:
    """Return the ids of the processes in a namespace, without this one."""
    if not exists(name):
        return []
    return [pid for pid in map(int, ip("netns", "pids", name).split()) if pid != os.getpid()]


def remove(name: str) -> None:
    """End what runs in a namespace and remove it, its devices with it. Safe to call twice."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in processes_in(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until_s = time.monotonic() + _GRACE_S
        while processes_in(name) and time.monotonic() < until_s:
            time.sleep(0.02)
    if exists(name):
        ip("netns", "delete", name)


@contextlib.contextmanager
def network(name: str) -> Iterator[None]:
    """Let this thread, and what it starts meanwhile, use the network of a namespace.

    A socket keeps the network in which it was made.

    Raises:
        ClusterError: there is no such namespace.
    """
    with contextlib.ExitStack() as open_files:
        try:
            here = open_files.enter_context(open("/proc/thread-self/ns/net"))
            there = open_files.enter_context(path_of(name).open())
        except FileNotFoundError as error:
            raise ClusterError(f"there is no network namespace {name}") from error
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(here.fileno())


def _enter(descriptor: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise ClusterError(f"the namespace cannot be entered: {os.strerror(number)}")
