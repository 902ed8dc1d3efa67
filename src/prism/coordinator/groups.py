"""Which nodes are connected with each other: one epoch per set of nodes, until one of them goes.

Plain state, guarded by its owner.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prism.control.messages import Group


@dataclass(frozen=True, slots=True)
class _Formed:
    """A group, and since when each of its members has been alive without a break."""

    group: Group
    since: tuple[int, ...]


class Groups:
    """The groups of one cluster.

    Args:
        transport: name of what connects the members.
        meeting_port: of the meeting point at the coordinator.
    """

    def __init__(self, transport: str, meeting_port: int) -> None:
        self._transport = transport
        self._meeting_port = meeting_port
        self._formed: dict[tuple[str, ...], _Formed] = {}
        self._epochs = itertools.count(1)

    def of(self, members: tuple[str, ...], since: Sequence[int]) -> tuple[Group, bool]:
        """Return the group of exactly these nodes, and whether it has yet to be formed.

        Args:
            members: names of the nodes, by rank.
            since: for each, the membership epoch of its admission.
        """
        formed = self._formed.get(members)
        if formed is not None and formed.since == tuple(since):
            return formed.group, False
        group = Group(
            epoch=next(self._epochs),
            members=members,
            transport=self._transport,
            meeting_port=self._meeting_port,
        )
        self._formed[members] = _Formed(group, tuple(since))
        return group, True

    def drop(self, members: tuple[str, ...]) -> Mapping[str, tuple[int, ...]]:
        """Forget a group; return by node the epochs to close."""
        formed = self._formed.pop(members, None)
        if formed is None:
            return {}
        return dict.fromkeys(members, (formed.group.epoch,))

    def without(self, name: str) -> Mapping[str, tuple[int, ...]]:
        """Forget the groups that a lost node was in; return by survivor the epochs to close."""
        closing: dict[str, tuple[int, ...]] = {}
        for members in [members for members in self._formed if name in members]:
            epoch = self._formed.pop(members).group.epoch
            for member in members:
                if member != name:
                    closing[member] = (*closing.get(member, ()), epoch)
        return closing
