"""What this machine is: its processor, its torch device, its address towards the coordinator."""

from __future__ import annotations

import itertools
import platform
import socket
from importlib.metadata import version
from pathlib import Path

import torch

from prism.control.messages import NodeFacts
from prism.errors import ConfigError
from prism.version import VERSION


def pick_device(text: str) -> str:
    """Return the torch device for `auto`, or the one asked for.

    Raises:
        ConfigError: there is no such device here.
    """
    if text == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=text).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"device {text!r} cannot be used here: {reason}") from error
    return text


def facts_of(device: str, cores: tuple[int, ...]) -> NodeFacts:
    """Return what a node on `device`, pinned to `cores`, says of itself."""
    return NodeFacts(
        hardware=hardware_name(device),
        device=device,
        threads=torch.get_num_threads(),
        cores=cores,
        prism=VERSION,
        torch=torch.__version__,
        transformers=version("transformers"),
    )


def hardware_name(device: str) -> str:
    """Return what a person calls this machine's processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    board = Path("/proc/device-tree/model")
    if board.is_file():
        return board.read_text().strip("\0\n ")
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = (line for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
        for line in itertools.islice(names, 1):
            return line.partition(":")[2].strip()
    return platform.machine()


def address_towards(host: str, port: int) -> str:
    """Return the address of this machine by which it reaches `host`; sends nothing.

    Raises:
        ConfigError: the name is unknown, or no network leads there.
    """
    try:
        family, _, _, _, peer = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(peer)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(f"no way to the coordinator at {host!r}: {error.strerror}") from error
