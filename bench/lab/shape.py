"""What a lab is made of, as data: its boards, their addresses, and the link between them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prism.emulation.link import LinkShape
from prism.errors import ConfigError

FEWEST, MOST = 2, 4
DEVICE = "eth0"  # of every board
PREFIX_BITS = 24
_NETWORK = "10.78.0"
_MEDIA = ("switched", "shared")
_LAB_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class Link:
    """What lies between the boards.

    Attributes:
        rate_bps: bits per second on the wire, headers included: of every board's uplink and of its
            downlink (`switched`), or of all boards together (`shared`).
        delay_s: one way.
        loss: share of packets that are lost, 0..1.
        shared: all boards take turns on one medium, as on WiFi; else each has a port of a switch,
            whose two directions do not disturb each other.
    """

    rate_bps: float = 100e6
    delay_s: float = 3e-3
    loss: float = 0.0
    shared: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_bps) and 1e3 <= self.rate_bps <= 1e11):
            raise ConfigError(
                f"a lab's rate lies between 1kbit and 100gbit, not {self.rate_bps:g} bit/s; "
                f"write for example --rate 100mbit"
            )
        if not (math.isfinite(self.delay_s) and 0 <= self.delay_s <= 10):
            raise ConfigError(
                f"a lab's delay lies between 0ms and 10s, not {self.delay_s:g} s; "
                f"write for example --delay 3ms"
            )
        if not 0 <= self.loss < 1:
            raise ConfigError(
                f"a lab's loss lies between 0% and below 100%, not {100 * self.loss:g}%; "
                f"write for example --loss 0.1%"
            )

    @property
    def medium(self) -> str:
        """`switched` or `shared`."""
        return _MEDIA[self.shared]

    def __str__(self) -> str:
        shape = str(LinkShape(bandwidth_bps=self.rate_bps, latency_s=self.delay_s))
        loss = f",loss={100 * self.loss:g}%" if self.loss else ""
        return f"{shape}{loss},{self.medium}"

    def changed(
        self, rate: str | None = None, delay: str | None = None, loss: str | None = None
    ) -> Link:
        """Return the link with what was given as text; None leaves a part as it is.

        Raises:
            ConfigError: a text is no rate, no time or no share.
        """
        changes: dict[str, Any] = {}
        if rate is not None:
            changes["rate_bps"] = _quantity("rate", rate)
        if delay is not None:
            changes["delay_s"] = _quantity("delay", delay)
        if loss is not None:
            changes["loss"] = read_loss(loss)
        return replace(self, **changes)

    def reshaped(self, text: str) -> Link:
        """Return the link with rate and delay of a text such as `100mbit,3ms`.

        Raises:
            ConfigError: the text is no link, or names something else.
        """
        shape = LinkShape.parse(text)
        known = LinkShape(bandwidth_bps=shape.bandwidth_bps, latency_s=shape.latency_s)
        if shape.bandwidth_bps is None or shape != known:
            raise ConfigError(f"a lab's link has a rate and a delay, such as 100mbit,3ms: {text!r}")
        return replace(self, rate_bps=shape.bandwidth_bps, delay_s=shape.latency_s)


@dataclass(frozen=True, slots=True)
class Board:
    """One device of a lab.

    Attributes:
        index: from 0.
        cores: its programs run on these cores; none: on any.
        cpu: the share of a core it may use, above 0; None: all it can get.
    """

    index: int
    cores: tuple[int, ...] = ()
    cpu: float | None = None

    def __post_init__(self) -> None:
        if self.cpu is not None and not 0.01 <= self.cpu <= 64:
            raise ConfigError(f"a board may use 0.01 to 64 cores, not {self.cpu:g}")

    @property
    def name(self) -> str:
        """`board1`, `board2`, ..."""
        return f"board{self.index + 1}"

    @property
    def address(self) -> str:
        """Its IPv4 address; the same in every lab, since labs do not see each other."""
        return f"{_NETWORK}.{self.index + 1}"


def boards_of(
    nodes: int, cores: Sequence[Sequence[int]] = (), cpu: Sequence[float | None] = ()
) -> tuple[Board, ...]:
    """Return the boards of a lab.

    Args:
        nodes: how many.
        cores: by board, the cores it is pinned to; none given: no board is.
        cpu: by board, or one for all, the share of a core it may use; none given: no limit.

    Raises:
        ConfigError: the numbers do not fit each other, or a lab cannot have so many.
    """
    if not FEWEST <= nodes <= MOST:
        raise ConfigError(f"a lab has {FEWEST} to {MOST} nodes, not {nodes}")
    shares = list(cpu) * nodes if len(cpu) == 1 else list(cpu) or [None] * nodes
    pins = [tuple(each) for each in cores] or [()] * nodes
    for what, values in (("CPU shares", shares), ("sets of cores", pins)):
        if len(values) != nodes:
            raise ConfigError(f"{nodes} nodes need as many {what}, not {len(values)}")
    return tuple(Board(index, pins[index], shares[index]) for index in range(nodes))


def check_name(name: str) -> str:
    """Return the name of a lab.

    Raises:
        ConfigError: namespaces and folders cannot carry it.
    """
    if not _LAB_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a lab; use small letters, digits and dashes")
    return name


def namespace_of(lab: str, part: str) -> str:
    """Return the name of the network namespace of a board, or of the switch, of a lab."""
    return f"prism-{lab}-{part}"


def read_loss(text: str) -> float:
    """Read a share such as `0.1%`.

    Raises:
        ConfigError: the text is no share.
    """
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise ConfigError(f"loss {text!r} is not understood; write for example 0.1%") from error


def medium_is_shared(text: str) -> bool:
    """Read `switched` or `shared`.

    Raises:
        ConfigError: it is neither.
    """
    if text not in _MEDIA:
        raise ConfigError(f"a lab's medium is one of {', '.join(_MEDIA)}, not {text!r}")
    return text == "shared"


def _quantity(what: str, text: str) -> float:
    """Read a rate in bit/s or a time in s."""
    shape = LinkShape.parse(text)
    value: Any = shape.bandwidth_bps if what == "rate" else shape.latency_s
    plain = LinkShape(bandwidth_bps=value) if what == "rate" else LinkShape(latency_s=value)
    if value is None or shape != plain or not text.strip():
        example = {"rate": "100mbit", "delay": "3ms"}[what]
        raise ConfigError(f"{text!r} is no {what}; write for example --{what} {example}")
    return float(value)
