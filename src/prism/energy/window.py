"""The window: the one way energy is asked for, whatever reads it.

A source knows how to begin a stretch of time and how to finish it; the meter adds who it belongs
to. Windows may nest and overlap, also across threads: each has its own beginning and end, nothing
is shared but the source.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol

from prism.energy.reading import EnergyReading
from prism.errors import InputError


@dataclass(frozen=True, slots=True)
class Busy:
    """How much of a window the node worked, as its owner told; nothing told means all of it."""

    seconds: float | None = None
    fraction: float | None = None

    def within(self, duration_s: float) -> float:
        """Return the busy seconds of a window of `duration_s`, never more than that."""
        if self.seconds is not None:
            return min(self.seconds, duration_s)
        return duration_s if self.fraction is None else self.fraction * duration_s


# Ends a stretch of time. What it returns tells the energy, as far as it is known when it is asked:
# a source that samples in the background knows more a moment later.
Finish = Callable[[Busy], Callable[[], EnergyReading]]


class Source(Protocol):
    """Where energy comes from.

    Attributes:
        scope: what the joules cover on this node.
    """

    @property
    def scope(self) -> str:
        """What the joules cover on this node."""

    def begin(self) -> Finish:
        """Start a stretch of time, which the result ends, once; neither waits for a sensor."""


class Window:
    """One stretch of time whose energy is wanted; a context manager that is entered once.

    Entering and leaving it only notes the time.
    """

    def __init__(self, source: Source, node: str, domain: str) -> None:
        self._source = source
        self._node = node
        self._domain = domain
        self._busy = Busy()
        self._finish: Finish | None = None
        self._tell: Callable[[], EnergyReading] | None = None

    def __enter__(self) -> Window:
        if self._finish is not None:
            raise InputError("an energy window is entered once; ask the meter for a new window()")
        self._finish = self._source.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._finish is not None, "left before it was entered"
        self._tell = self._finish(self._busy)

    def busy(self, *, seconds: float | None = None, fraction: float | None = None) -> None:
        """Say how long the node worked in this window, for a power model; sensors ignore it.

        The last call before the window closes counts. Give either `seconds` or a `fraction` 0..1.

        Raises:
            InputError: both or neither given, or out of range, or the window is closed.
        """
        if self._tell is not None:
            raise InputError(
                "the energy window is closed; tell its busy time inside the with block"
            )
        if (seconds is None) == (fraction is None):
            raise InputError("give busy(seconds=...) or busy(fraction=...), one of the two")
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise InputError(f"busy seconds must be finite and not negative, not {seconds}")
        if fraction is not None and not 0.0 <= fraction <= 1.0:
            raise InputError(f"the busy fraction must lie in 0..1, not {fraction}")
        self._busy = Busy(seconds, fraction)

    @property
    def reading(self) -> EnergyReading:
        """The result, once the window is closed; never waits.

        Right after the window its last part may be an estimate from the samples before; a little
        later it rests on a sample from after the window, and stays as it is.
        """
        if self._tell is None:
            raise InputError("the energy window is still open; read it after the with block")
        reading = self._tell()
        scope = f"{reading.scope} of {self._node}" if self._node else reading.scope
        return replace(reading, scope=scope, node=self._node, domain=self._domain)


class EnergyMeter:
    """Gives energy windows on one node, from one source.

    Attributes:
        name: the reader, as in the configuration text: `ina3221`, `model`, `none`, ...
        node: the node the energy belongs to; empty when nobody named it.
    """

    def __init__(self, name: str, source: Source, *, node: str = "", domain: str = "") -> None:
        self.name = name
        self.node = node
        self._source = source
        self._domain = domain

    @property
    def scope(self) -> str:
        """What the joules cover, without the node's name."""
        return self._source.scope

    def window(self) -> Window:
        """Return a context manager whose `reading` holds the energy once it is closed."""
        return Window(self._source, self.node, self._domain)
