"""Whose request is next, and which others join it: a pure, immutable queue.

Clients take turns, and each one's requests come in the order of arrival. The request whose turn it
is leads a batch; others of the same key join it, again one client after the other, while there is
room. The client of the leading request then goes to the end. Those whose requests joined keep their
turn: they would never lead otherwise, and what they have of other keys would wait for ever. So a
client with one request waits for at most one batch of every other client, however many requests
those have, and nothing starves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that waits.

    Attributes:
        number: of the request, rising in the order of arrival.
        client: who asks.
        key: requests of equal keys can be one batch.
        rows: of its inputs.
        until_s: when nobody wants the answer any more, on the caller's clock.
    """

    number: int
    client: str
    key: Hashable
    rows: int
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Line:
    """All requests that wait.

    Attributes:
        by_client: the requests of each client in the order of arrival; the client whose turn is
            next first, none without requests.
    """

    by_client: Mapping[str, tuple[Entry, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def __iter__(self) -> Iterator[Entry]:
        for entries in self.by_client.values():
            yield from entries

    def __len__(self) -> int:
        return sum(map(len, self.by_client.values()))

    @property
    def rows(self) -> int:
        """Rows of all requests together."""
        return sum(entry.rows for entry in self)

    def rows_of(self, key: Hashable) -> int:
        """Return the rows of all requests of one key."""
        return sum(entry.rows for entry in self if entry.key == key)

    def added(self, entry: Entry) -> Line:
        """Return the queue with one more request; a client that had none comes last."""
        mine = (*self.by_client.get(entry.client, ()), entry)
        return Line(MappingProxyType({**self.by_client, entry.client: mine}))

    def without(self, numbers: Collection[int]) -> Line:
        """Return the queue without some requests; the turns stay as they are."""
        kept = {
            client: tuple(entry for entry in entries if entry.number not in numbers)
            for client, entries in self.by_client.items()
        }
        return Line(MappingProxyType({client: left for client, left in kept.items() if left}))

    def expired(self, now_s: float) -> tuple[Entry, ...]:
        """Return the requests whose answer nobody wants any more."""
        return tuple(entry for entry in self if entry.until_s <= now_s)

    def next(self, limit: Callable[[Hashable], int]) -> tuple[Entry, ...]:
        """Return the requests that are the next batch, the leading one first.

        Args:
            limit: returns how many rows a batch of a key may have now; 0 = none may start. A
                request of more rows is a batch of its own.

        Returns:
            Nothing where none may start.
        """
        limits: dict[Hashable, int] = {}
        for entry in self._leaders():
            if entry.key not in limits:
                limits[entry.key] = limit(entry.key)
            if limits[entry.key] > 0:
                return self._batch(entry, limits[entry.key])
        return ()

    def served(self, batch: Sequence[Entry]) -> Line:
        """Return the queue after a batch of `next` has left it: its leader's client is last."""
        left = dict(self.without({entry.number for entry in batch}).by_client)
        again = left.pop(batch[0].client, None)
        if again is not None:
            left[batch[0].client] = again
        return Line(MappingProxyType(left))

    def _leaders(self) -> Iterator[Entry]:
        """Yield the oldest request of each key of each client, client by client."""
        for entries in self.by_client.values():
            oldest: dict[Hashable, Entry] = {}
            for entry in entries:
                oldest.setdefault(entry.key, entry)
            yield from oldest.values()

    def _batch(self, leader: Entry, limit: int) -> tuple[Entry, ...]:
        """Return the leading request and those that join it within `limit` rows."""
        batch, room = [leader], limit - leader.rows
        for entry in self._joining(leader):
            if entry.rows <= room:
                batch.append(entry)
                room -= entry.rows
        return tuple(batch)

    def _joining(self, leader: Entry) -> Iterator[Entry]:
        """Yield the others of the leader's key: one of each client, then another one of each."""
        clients = [*self.by_client]
        begin = clients.index(leader.client) + 1
        rounds = [
            [each for each in self.by_client[client] if each.key == leader.key]
            for client in (*clients[begin:], *clients[:begin])
        ]
        # The leader's client has had its place in the first round.
        rounds[-1].remove(leader)
        for number in range(max(map(len, rounds))):
            yield from (mine[number] for mine in rounds if number < len(mine))
