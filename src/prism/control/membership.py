"""Who is in the cluster: a pure state machine, `(state, event) -> (state, actions)`.

Time comes in with the events, so that every history can be replayed in a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

LOST_AFTER_S = 3.0


@dataclass(frozen=True, slots=True)
class Member:
    """One admitted node.

    Attributes:
        name: unique in the cluster.
        seen_s: when it was last heard of.
        since: the epoch that its admission opened.
        alive: false once it was declared lost; it may join again.
        rival_s: since when somebody else asks for the name of a node that is alive.
    """

    name: str
    seen_s: float
    since: int
    alive: bool = True
    rival_s: float | None = None


@dataclass(frozen=True, slots=True)
class State:
    """All nodes ever admitted, and the epoch: it grows with every change of who is alive."""

    members: Mapping[str, Member] = field(default_factory=lambda: MappingProxyType({}))
    epoch: int = 0

    @property
    def alive(self) -> tuple[str, ...]:
        """Names of the nodes alive, in the order they were first admitted."""
        return tuple(member.name for member in self.members.values() if member.alive)


@dataclass(frozen=True, slots=True)
class Joined:
    """A node asked to join; it asks again until it is answered."""

    name: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Something was heard from a node."""

    name: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Left:
    """A node is known to be gone: it said so, its process ended, or its connection broke."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""

    at_s: float


Event = Joined | Seen | Left | Tick


@dataclass(frozen=True, slots=True)
class Admit:
    """Welcome the node."""

    name: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Turn the node away."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lose:
    """Fail what the node was working on."""

    name: str
    reason: str


Action = Admit | Refuse | Lose


def step(
    state: State, event: Event, lost_after_s: float = LOST_AFTER_S
) -> tuple[State, tuple[Action, ...]]:
    """Return the state after `event`, and what is to be done about it."""
    if isinstance(event, Joined):
        return _join(state, event)
    if isinstance(event, Seen):
        member = state.members.get(event.name)
        if member is None or not member.alive:
            return state, ()
        return _with(state, replace(member, seen_s=max(member.seen_s, event.at_s))), ()
    if isinstance(event, Left):
        return _lose(state, event.name, event.reason)
    actions: tuple[Action, ...] = ()
    for name in state.alive:
        silent_s = event.at_s - state.members[name].seen_s
        if silent_s > lost_after_s:
            state, lost = _lose(state, name, f"silent for {silent_s:.1f} s")
            actions += lost
    return state, actions


def _join(state: State, event: Joined) -> tuple[State, tuple[Action, ...]]:
    member = state.members.get(event.name)
    if member is not None and member.alive:
        return _claim(state, member, event.at_s)
    epoch = state.epoch + 1
    joined = _with(state, Member(event.name, event.at_s, since=epoch))
    return replace(joined, epoch=epoch), (Admit(event.name),)


def _claim(state: State, member: Member, at_s: float) -> tuple[State, tuple[Action, ...]]:
    """Let a node that asks for a taken name wait until it is known whether the owner still lives.

    A process that was killed and started again is back before its silence is noticed.
    """
    if member.rival_s is None:
        return _with(state, replace(member, rival_s=at_s)), ()
    if member.seen_s <= member.rival_s:
        return state, ()
    reason = f"a node named {member.name} is already in the cluster; choose another name"
    return _with(state, replace(member, rival_s=None)), (Refuse(member.name, reason),)


def _lose(state: State, name: str, reason: str) -> tuple[State, tuple[Action, ...]]:
    member = state.members.get(name)
    if member is None or not member.alive:
        return state, ()
    lost = _with(state, replace(member, alive=False, rival_s=None))
    return replace(lost, epoch=state.epoch + 1), (Lose(name, reason),)


def _with(state: State, member: Member) -> State:
    return replace(state, members=MappingProxyType({**state.members, member.name: member}))
