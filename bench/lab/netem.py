"""Boards on the ports of a bridge, shaped by the kernel itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from bench.lab import namespaces
from bench.lab.shape import DEVICE, Board, Link, namespace_of

from prism.errors import ClusterError

SWITCH = "switch"  # the namespace of the bridge
_PACKET_BYTES = 1500
_LONGEST_QUEUE_S = 0.1  # as the forwarders'


class Netem:
    """Boards on the ports of a bridge, both directions of each shaped by netem.

    Args:
        lab: its name.
        boards: of the lab.
    """

    kind = "netem"

    def __init__(self, lab: str, boards: Sequence[Board]) -> None:
        self._lab, self._boards = lab, boards
        self._switch = namespace_of(lab, SWITCH)

    def lay(self, link: Link) -> None:
        self.join()
        self._shape("add", link)

    def join(self) -> None:
        """Join the boards by a bridge that shapes nothing yet."""
        namespaces.add(self._switch)
        namespaces.ip("link", "add", "bridge0", "type", "bridge", within=self._switch)
        namespaces.ip("link", "set", "bridge0", "up", within=self._switch)
        for board in self._boards:
            end = namespace_of(self._lab, board.name)
            plug = ["link", "add", board.name, "type", "veth", "peer", "name", DEVICE, "netns", end]
            namespaces.ip(*plug, within=self._switch)
            # One packet at a time, as on a wire: netem would take 64 KB at once for one packet.
            for name, device in ((self._switch, board.name), (end, DEVICE)):
                namespaces.ip("link", "set", device, "gso_max_segs", "1", within=name)
            namespaces.ip("link", "set", board.name, "master", "bridge0", "up", within=self._switch)
            namespaces.configure(end, board)

    def reshape(self, link: Link, cut: Sequence[Board]) -> None:
        self._shape("change", link)
        for board in self._boards:
            state = "down" if board in cut else "up"
            namespaces.ip("link", "set", board.name, state, within=self._switch)

    def carried(self) -> None:
        return None

    def close(self) -> None:
        namespaces.remove(self._switch)

    def _shape(self, verb: str, link: Link) -> None:
        for board in self._boards:
            end = namespace_of(self._lab, board.name)
            for name, device, delayed in ((end, DEVICE, False), (self._switch, board.name, True)):
                words = ["tc", "-n", name, "qdisc", verb, "dev", device, "root"]
                namespaces.command(*words, *netem_arguments(link, delayed))


def has_netem() -> bool:
    """Whether this kernel shapes links by itself: asked of a namespace that lives for a moment."""
    if shutil.which("tc") is None:
        return False
    name = namespace_of(f"probe-{os.getpid()}", SWITCH)
    try:
        namespaces.add(name)
        namespaces.ip("link", "add", "probe0", "type", "veth", "peer", "probe1", within=name)
        namespaces.ip("link", "add", "probe2", "type", "bridge", within=name)
        shaping = netem_arguments(Link())
        namespaces.command("tc", "-n", name, *["qdisc", "add", "dev", "probe0", "root"], *shaping)
    except ClusterError:
        return False
    finally:
        namespaces.remove(name)
    return True


def netem_arguments(link: Link, delayed: bool = True) -> list[str]:
    """Return what tc is told of one direction of one board.

    Args:
        link: what it shall do.
        delayed: with the delay and the loss, which packets meet once on their way.
    """
    delay_s = link.delay_s if delayed else 0.0
    held = link.rate_bps * (delay_s + _LONGEST_QUEUE_S) / 8 / _PACKET_BYTES
    words = ["netem", "rate", f"{link.rate_bps:.0f}bit", "limit", f"{max(10, held):.0f}"]
    if delay_s:
        words += ["delay", f"{delay_s * 1e6:.0f}us"]
    if delayed and link.loss:
        words += ["loss", f"{100 * link.loss:g}%"]
    return words
