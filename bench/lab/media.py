"""What carries packets between the boards: the kernel's netem, or a forwarder of our own.

Each lays the network once its namespaces are there, changes it while it runs, and takes it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bench.lab.forwarder import PYTHON, C, Carried, Forwarder, compiler
from bench.lab.netem import Netem, has_netem
from bench.lab.shape import Board, Link
from bench.lab.state import LabState

from prism.errors import ConfigError

NETEM, AUTO = "netem", "auto"
CHOICES = (AUTO, NETEM, C, PYTHON)


class Medium(Protocol):
    """What carries the packets of one lab."""

    kind: str

    def lay(self, link: Link) -> None:
        """Join the boards; their namespaces are there.

        Raises:
            ClusterError: it failed; says why.
        """

    def reshape(self, link: Link, cut: Sequence[Board]) -> None:
        """Give the link another shape, and cut the boards named, those alone."""

    def carried(self) -> Carried | None:
        """Return what was done; None where nobody counts."""

    def close(self) -> None:
        """Take the network away. Safe to call twice."""


def choose(kind: str, shared: bool) -> str:
    """Return which kind of medium a new lab gets; `auto` takes the first that this machine has.

    Args:
        kind: one of `CHOICES`.
        shared: whether all boards share one medium, which netem is not used for.

    Raises:
        ConfigError: this machine does not have what was asked for.
    """
    if kind not in CHOICES:
        raise ConfigError(f"a lab's forwarder is one of {', '.join(CHOICES)}, not {kind!r}")
    if kind == NETEM and shared:
        raise ConfigError("netem joins boards by a switch only; leave --forwarder netem out")
    if kind == NETEM and not has_netem():
        raise ConfigError("this kernel has no netem; leave --forwarder netem out")
    if kind == C and compiler() is None:
        raise ConfigError("there is no C compiler; install gcc, or leave --forwarder c out")
    if kind != AUTO:
        return kind
    if not shared and has_netem():
        return NETEM
    return C if compiler() is not None else PYTHON


def medium_of(state: LabState) -> Medium:
    """Return what carries the packets of a lab, whether or not it was laid yet."""
    if state.kind == NETEM:
        return Netem(state.name, state.boards)
    watched = state.owner is not None
    return Forwarder(
        state.kind,
        state.name,
        state.boards,
        state.directory,
        watched=watched,
        offload=state.offload,
    )
