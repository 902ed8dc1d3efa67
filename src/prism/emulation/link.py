"""An emulated link as text: rate, delay and faults, without torch and without sockets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prism.errors import ConfigError

_BANDWIDTHS: Mapping[str, float] = {"gbit": 1e9, "mbit": 1e6, "kbit": 1e3, "bit": 1.0}
_TIMES: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)([a-z]+)")
_FAULT = re.compile(r"(\d{1,12})(?:\+(.+))?")
_EXAMPLE = (
    'write for example "100mbit,3ms" or "100mbit,3ms,jitter=1ms,shared,drop=50,stall=50+2s", '
    'with kbit, mbit, gbit and us, ms, s; "none" leaves the link alone'
)


@dataclass(frozen=True, slots=True)
class LinkShape:
    """What an emulated link does to frames.

    Attributes:
        bandwidth_bps: rate of one node's uplink and of its downlink; None = unlimited.
        latency_s: one way.
        jitter_s: each frame takes up to this much longer, uniformly drawn.
        shared: all nodes take turns on one half-duplex medium, as at an access point.
        drop_after: a node's frames vanish once it has sent this many; None = never.
        stall_after: a node's frames come `stall_s` late once it has sent this many; None = never.
        stall_s: how long stalled frames are held back.
    """

    bandwidth_bps: float | None = None
    latency_s: float = 0.0
    jitter_s: float = 0.0
    shared: bool = False
    drop_after: int | None = None
    stall_after: int | None = None
    stall_s: float = 0.0

    def __post_init__(self) -> None:
        rate = self.bandwidth_bps
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise ConfigError(f"a link's bandwidth must be above 0 bit/s, not {rate}; {_EXAMPLE}")
        for name in ("latency_s", "jitter_s", "stall_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"a link's {name} must be 0 or more, not {value}; {_EXAMPLE}")
        for name in ("drop_after", "stall_after"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"a link's {name} must be 0 or more, not {value}; {_EXAMPLE}")
        if (self.stall_after is None) != (self.stall_s == 0):
            raise ConfigError(
                f"a stall needs both a count and a time, not {self.stall_after} and "
                f"{self.stall_s} s; {_EXAMPLE}"
            )

    def hold_s(self, sent: int) -> float:
        """Return how long the frame after `sent` earlier ones is held back; inf if it vanishes."""
        if self.drop_after is not None and sent >= self.drop_after:
            return math.inf
        if self.stall_after is not None and sent >= self.stall_after:
            return self.stall_s
        return 0.0

    def __str__(self) -> str:
        parts = []
        if self.bandwidth_bps is not None:
            parts.append(_quantity_text(self.bandwidth_bps, _BANDWIDTHS))
        if self.latency_s:
            parts.append(_quantity_text(self.latency_s, _TIMES))
        if self.jitter_s:
            parts.append(f"jitter={_quantity_text(self.jitter_s, _TIMES)}")
        if self.shared:
            parts.append("shared")
        if self.drop_after is not None:
            parts.append(f"drop={self.drop_after}")
        if self.stall_after is not None:
            parts.append(f"stall={self.stall_after}+{_quantity_text(self.stall_s, _TIMES)}")
        return ",".join(parts) or "none"

    @classmethod
    def parse(cls, text: str) -> LinkShape:
        """Read what `str(shape)` prints; "" and "none" mean no shaping.

        Raises:
            ConfigError: the text is no link; the message quotes it and gives an example.
        """
        words = text.strip().lower()
        values: dict[str, Any] = {}
        for word in [] if words in ("", "none") else words.split(","):
            for key, value in _read_word(text, word.strip()).items():
                if key in values:
                    raise ConfigError(f"link {text!r} gives {key} twice; {_EXAMPLE}")
                values[key] = value
        return cls(**values)


def _read_word(text: str, word: str) -> dict[str, Any]:
    name, equals, value = word.partition("=")
    if word == "shared":
        return {"shared": True}
    if name == "jitter" and equals:
        return {"jitter_s": _read_quantity(text, value, _TIMES)}
    fault = _FAULT.fullmatch(value)
    if name == "drop" and fault and not fault[2]:
        return {"drop_after": int(fault[1])}
    if name == "stall" and fault and fault[2]:
        held_s = _read_quantity(text, fault[2], _TIMES)
        return {"stall_after": int(fault[1]), "stall_s": held_s}
    match = _QUANTITY.fullmatch(word)
    if match and match[2] in _BANDWIDTHS:
        return {"bandwidth_bps": _read_quantity(text, word, _BANDWIDTHS)}
    return {"latency_s": _read_quantity(text, word, _TIMES)}


def _read_quantity(text: str, word: str, units: Mapping[str, float]) -> float:
    match = _QUANTITY.fullmatch(word)
    if not match or match[2] not in units:
        raise ConfigError(f"{word!r} in link {text!r} is not understood; {_EXAMPLE}")
    return float(match[1]) * units[match[2]]


def _quantity_text(value: float, units: Mapping[str, float]) -> str:
    """Return the text a person would write that reads back as exactly `value`."""
    texts = []
    for unit, factor in units.items():
        number = repr(value / factor).removesuffix(".0")
        if float(number) * factor == value:
            texts.append(number + unit)
    return min(texts, key=lambda text: (text.startswith("0."), len(text)))
