"""How a server closes: what is let in no more, what is still answered, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Closing:
    """Whether the server closes, and what has to end because of it; of one event loop.

    First `begin`: bodies that still arrive are given up, since nobody promised them an answer. Then
    `expire`: the drain time is over, and so is what was still worked on.
    """

    def __init__(self) -> None:
        self._begun = False
        self._expired = False
        self._arriving: set[asyncio.Future[Any]] = set()
        self._working: set[asyncio.Future[Any]] = set()

    @property
    def begun(self) -> bool:
        """Whether no new request is taken."""
        return self._begun

    @property
    def expired(self) -> bool:
        """Whether no more time is left for those that were taken."""
        return self._expired

    @contextmanager
    def arriving(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """Cancel `future`, which waits for a request's body, when closing begins."""
        with _member(self._arriving, future):
            if self._begun:
                future.cancel()
            yield

    @contextmanager
    def working(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """Cancel `future`, which answers a request, when the drain time is over."""
        with _member(self._working, future):
            yield

    def begin(self) -> None:
        """Give up what has not arrived."""
        self._begun = True
        for future in tuple(self._arriving):
            future.cancel()

    def expire(self) -> None:
        """Give up what has not been answered."""
        self._expired = True
        for future in tuple(self._working):
            future.cancel()


@contextmanager
def _member(futures: set[asyncio.Future[Any]], future: asyncio.Future[Any]) -> Iterator[None]:
    futures.add(future)
    try:
        yield
    finally:
        futures.discard(future)
