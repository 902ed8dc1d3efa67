"""The coordinator: owns requests, membership and the meeting point of the nodes.

The switchboard's thread feeds the membership; callers send through it and wait on a queue of their
own. Any failure of a node ends the attempt, and what to do then is the caller's business.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from prism import errors
from prism.control import membership as members
from prism.control import messages as control
from prism.control.admission import mismatch, protocol_mismatch
from prism.control.keys import Secret
from prism.control.listener import Listener
from prism.errors import ClusterError, NodeFailed, PeerLost
from prism.transport.gloo import serve_store

_PING_S = 0.25
_STORE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Lost:
    """Told to every waiting caller: a node is gone."""

    name: str
    reason: str


@dataclass(slots=True)
class Call:
    """One question to some nodes, and the queue its answers come to."""

    request: int
    answers: queue.SimpleQueue[tuple[str, Any, list[Any]]] = field(
        default_factory=queue.SimpleQueue
    )


@dataclass(frozen=True, slots=True)
class _Meeting:
    """A group, and since when each of its members has been alive without a break."""

    group: control.Group
    since: tuple[int, ...]


class Coordinator:
    """Talks to the nodes.

    Args:
        host: address to listen on.
        port: control port; 0 picks a free one.
        secret: the cluster secret.
    """

    def __init__(self, host: str, port: int, secret: Secret) -> None:
        self._state = members.State()
        self._hellos: dict[str, control.Hello] = {}
        self._identities: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._meetings: dict[tuple[str, ...], _Meeting] = {}
        self._epochs = itertools.count(1)
        self._changed = threading.Condition()
        self._id = uuid.uuid4().hex
        self._pinged_s = 0.0
        self._closed = False
        self._listener = Listener(host, port, secret)
        self.port = self._listener.port
        self._listener.serve(self)
        try:
            self._store = serve_store(host, 0, _STORE_TIMEOUT_S)
        except BaseException:
            self._listener.close()
            raise

    # -- what callers use -------------------------------------------------------------------------

    @property
    def alive(self) -> tuple[str, ...]:
        """Names of the nodes alive, in the order they joined."""
        with self._changed:
            return self._state.alive

    def hello(self, name: str) -> control.Hello:
        """Return what a node said of itself when it last joined.

        Raises:
            ClusterError: no such node ever joined.
        """
        with self._changed:
            if name not in self._hellos:
                known = ", ".join(self._hellos) or "none yet"
                raise ClusterError(f"no node named {name!r} has joined; known: {known}")
            return self._hellos[name]

    def wait_for(self, names: Sequence[str], timeout_s: float) -> tuple[str, ...]:
        """Wait until all of `names` are alive; return those still missing after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: set(names) <= set(self._state.alive), timeout_s)
            return tuple(name for name in names if name not in self._state.alive)

    def call(self) -> Call:
        """Open a question; close it with `end`.

        Raises:
            ClusterError: the coordinator is closed.
        """
        call = Call(next(self._numbers))
        with self._changed:
            if self._closed:
                raise ClusterError("this cluster is closed; open a new one")
            self._calls[call.request] = call
        return call

    def end(self, call: Call) -> None:
        """Stop listening for answers."""
        with self._changed:
            self._calls.pop(call.request, None)

    def send(self, name: str, message: BaseModel, frames: Sequence[memoryview] = ()) -> None:
        """Send a message to a node.

        Raises:
            PeerLost: the node is not alive.
        """
        with self._changed:
            if name not in self._state.alive:
                alive = ", ".join(self._state.alive) or "nobody"
                raise PeerLost(f"{name} is not in the cluster; alive: {alive}")
            identity = self._identities[name]
        self._listener.send(identity, message, frames)

    def answer(self, call: Call, deadline_s: float, waiting_for: Sequence[str]) -> Any:
        """Return the next answer as `(name, message, frames)`.

        Args:
            call: the question.
            deadline_s: on `time.monotonic()`.
            waiting_for: nodes whose loss matters.

        Raises:
            PeerLost: one of `waiting_for` is gone.
            DeadlineExceeded: nobody answered in time.
            PrismError: a node reported a failure; its own class.
        """
        while True:
            try:
                name, message, frames = call.answers.get(
                    timeout=max(0.0, deadline_s - time.monotonic())
                )
            except queue.Empty:
                raise errors.DeadlineExceeded(
                    f"{', '.join(waiting_for)} did not answer in time"
                ) from None
            if isinstance(message, Lost):
                if message.name in waiting_for:
                    raise PeerLost(f"{message.name} is gone: {message.reason}")
                continue
            if isinstance(message, control.Failed):
                raise _error_named(message.error)(message.message)
            return name, message, frames

    def group(self, call: Call, names: tuple[str, ...]) -> control.Group:
        """Return the epoch in which exactly these nodes are connected, opening one if needed.

        Raises:
            PeerLost: one of them is not alive.
        """
        with self._changed:
            gone = [name for name in names if name not in self._state.alive]
            if gone:  # before anybody is told to wait for them
                raise PeerLost(f"{', '.join(gone)} is not in the cluster any more")
            since = tuple(self._state.members[name].since for name in names)
            meeting = self._meetings.get(names)
            if meeting is not None and meeting.since == since:
                return meeting.group
            group = control.Group(
                epoch=next(self._epochs), members=names, store_port=self._store.port
            )
            self._meetings[names] = _Meeting(group, since)
        for name in names:
            self.send(name, control.FormGroup(request=call.request, group=group))
        return group

    def new_epoch(self) -> None:
        """Let every connection among the nodes be made afresh, after a failure."""
        with self._changed:
            self._meetings.clear()
            horizon = next(self._epochs)
            identities = [self._identities[name] for name in self._state.alive]
        for identity in identities:
            self._listener.send(identity, control.Forget(epoch=horizon))

    def report_lost(self, name: str, pid: int, reason: str) -> None:
        """Take note that a node's process is gone, unless another one has taken its place."""
        with self._changed:
            if name in self._hellos and self._hellos[name].pid == pid:
                self._apply(members.Left(name, reason))

    def close(self) -> None:
        """Tell the nodes that the coordinator goes, and release everything. Safe to call twice."""
        with self._changed:
            self._closed = True
            alive = self._state.alive
            identities = [self._identities[name] for name in alive]
        for identity in identities:
            self._listener.send(identity, control.Stop())
        self._listener.close()
        for name in alive:
            self._apply(members.Left(name, "the cluster was closed"))

    # -- what the listener calls -------------------------------------------------------------------

    def tick(self) -> None:
        """Look for nodes that fell silent, and for broken connections."""
        now = time.monotonic()
        self._apply(members.Tick(now))
        if now - self._pinged_s < _PING_S:
            return
        self._pinged_s = now
        with self._changed:
            identities = [self._identities[name] for name in self._state.alive]
        for identity in identities:
            self._listener.send(identity, control.Ping())

    def unreachable(self, identity: bytes) -> None:
        """A node's connection is gone: its process ended, or its network did."""
        name = self._names.get(identity)
        if name is not None:
            self._apply(members.Left(name, "its connection broke"))

    def receive(self, identity: bytes, frames: list[Any]) -> None:
        """Admit a node, take note of its heartbeat, or pass its answer on."""
        try:
            message, rest = control.decode(frames)
        except ClusterError as error:
            self._turn_away(identity, frames, error)
            return
        if isinstance(message, control.Hello):
            self._admit(identity, message)
            return
        if isinstance(message, control.Heartbeat):
            name = message.name if self._is_current(message) else None
        else:
            name = self._names.get(identity)
        if name is None or name not in self.alive:
            self._listener.send(identity, control.Unknown())
            return
        self._apply(members.Seen(name, time.monotonic()))
        request = getattr(message, "request", None)
        with self._changed:
            call = self._calls.get(request) if request is not None else None
        if call is not None:
            call.answers.put((name, message, rest))

    def _is_current(self, beat: control.Heartbeat) -> bool:
        with self._changed:
            hello = self._hellos.get(beat.name)
        return hello is not None and hello.instance == beat.instance

    def _turn_away(self, identity: bytes, frames: list[Any], error: ClusterError) -> None:
        protocol = control.protocol_of(frames)
        reason = str(error) if protocol is None else protocol_mismatch(protocol)
        self._listener.send(identity, control.Refused(reason=reason))

    def _admit(self, identity: bytes, hello: control.Hello) -> None:
        with self._changed:
            current = self._hellos.get(hello.name)
            alive = hello.name in self._state.alive
        if alive and current is not None and current.instance == hello.instance:
            self._welcome(hello.name)  # the first one was still under way
            return
        reason = self._mismatch(hello)
        if reason:
            self._listener.send(identity, control.Refused(reason=reason))
            return
        with self._changed:
            if not alive:
                self._names.pop(self._identities.get(hello.name, b""), None)
                self._identities[hello.name] = identity
                self._names[identity] = hello.name
                self._hellos[hello.name] = hello
            actions = self._apply(members.Joined(hello.name, time.monotonic()))
        for action in actions:
            if isinstance(action, members.Admit):
                self._welcome(hello.name)
            elif isinstance(action, members.Refuse):
                self._listener.send(identity, control.Refused(reason=action.reason))

    def _welcome(self, name: str) -> None:
        with self._changed:
            identity, since = self._identities[name], self._state.members[name].since
        self._listener.send(identity, control.Welcome(coordinator=self._id, since=since))

    def _mismatch(self, hello: control.Hello) -> str | None:
        with self._changed:
            others = [self._hellos[name] for name in self._state.alive if name != hello.name]
        return mismatch(hello, others)

    def _apply(self, event: members.Event) -> tuple[members.Action, ...]:
        with self._changed:
            self._state, actions = members.step(self._state, event)
            calls = list(self._calls.values())
            if actions:
                self._changed.notify_all()
        for action in actions:
            if isinstance(action, members.Lose):
                for call in calls:
                    call.answers.put((action.name, Lost(action.name, action.reason), []))
        return actions


def _error_named(name: str) -> type[errors.PrismError]:
    found: Mapping[str, Any] = vars(errors)
    error = found.get(name)
    return error if isinstance(error, type) and issubclass(error, errors.PrismError) else NodeFailed
