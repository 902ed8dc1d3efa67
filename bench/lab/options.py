"""Options that say what a lab is like; the same for the lab's commands and its benchmarks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from bench.lab.lab import Lab
from bench.lab.media import AUTO, CHOICES
from bench.lab.shape import Link, medium_is_shared

from prism.errors import ConfigError


def add_link_options(parser: argparse.ArgumentParser, rate: str | None, delay: str | None) -> None:
    """Add `--rate`, `--delay` and `--loss`, with these defaults."""
    parser.add_argument("--rate", default=rate, help="of the link, such as 100mbit")
    parser.add_argument("--delay", default=delay, help="one way, such as 3ms")
    parser.add_argument("--loss", help="share of packets lost, such as 0.1%%")


def add_lab_options(parser: argparse.ArgumentParser, nodes: int, rate: str = "100mbit") -> None:
    """Add all that describes a lab."""
    parser.add_argument("--nodes", type=int, default=nodes, help="boards, 2 to 4")
    add_link_options(parser, rate, "3ms")
    parser.add_argument("--medium", default="switched", help="switched, or shared as WiFi is")
    parser.add_argument(
        "--cpu", default="", help="share of a core of every board (0.4), or of each (1,0.4)"
    )
    parser.add_argument(
        "--cores",
        default="",
        help="of each board: 0/1 or 0,1/2,3; default: one each, in turn",
    )
    parser.add_argument("--forwarder", default=AUTO, help=f"one of {', '.join(CHOICES)}")
    parser.add_argument(
        "--no-offload", action="store_true", help="let boards segment TCP with a forwarder, too"
    )


def lab_of(options: argparse.Namespace, *, name: str | None = None, stays: bool = False) -> Lab:
    """Return the lab that the options describe, not yet up.

    Raises:
        ConfigError: an option has a wrong value, or this machine allows no lab.
    """
    link = Link(shared=medium_is_shared(options.medium))
    return Lab(
        options.nodes,
        link.changed(options.rate, options.delay, options.loss),
        name=name,
        cores=read_cores(options.cores) or one_core_each(options.nodes),
        cpu=read_shares(options.cpu),
        forwarder=options.forwarder,
        offload=not options.no_offload,
        stays=stays,
    )


def read_shares(text: str) -> list[float]:
    """Read shares of a core, with commas between them.

    Raises:
        ConfigError: they are no numbers.
    """
    try:
        return [float(word) for word in text.split(",") if text]
    except ValueError as error:
        raise ConfigError(f"--cpu {text!r} is not understood; write 0.4, or 1,0.4") from error


def read_cores(text: str) -> list[list[int]]:
    """Read sets of cores, with slashes between boards and commas within.

    Raises:
        ConfigError: they are no cores of this machine.
    """
    try:
        cores = [[int(core) for core in word.split(",")] for word in text.split("/") if text]
    except ValueError as error:
        raise ConfigError(f"--cores {text!r} is not understood; write 0/1, or 0,1/2,3") from error
    here = os.sched_getaffinity(0)
    wrong = sorted({core for board in cores for core in board} - here)
    if wrong:
        raise ConfigError(f"--cores {text}: there is no core {wrong[0]} here, only {sorted(here)}")
    return cores


def one_core_each(nodes: int, available: Sequence[int] | None = None) -> list[list[int]]:
    """Return a core for every board; boards share cores where there are too few."""
    cores = sorted(os.sched_getaffinity(0)) if available is None else list(available)
    return [[cores[index % len(cores)]] for index in range(nodes)]
