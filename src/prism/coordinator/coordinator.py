"""The coordinator's side of the cluster: who is in it, questions to nodes, groups of nodes.

The listener's thread feeds the membership; callers ask through `call` and wait on a queue of their
own. Any failure of a node ends what was asked of it; what to do then is the caller's business.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from prism.control import membership as members
from prism.control import messages
from prism.control.admission import mismatch, protocol_mismatch
from prism.control.delivery import DIRECT, Delivery
from prism.control.keys import Secret
from prism.control.listener import Listener
from prism.coordinator.calls import Call, Calls
from prism.coordinator.groups import Groups
from prism.errors import ClusterError, PeerLost
from prism.transport.factory import TransportFactory

_PING_S = 0.25


class Coordinator:
    """Talks to the nodes.

    Args:
        host: address to listen on.
        port: control port; 0 picks a free one.
        secret: the cluster secret.
        factory: makes what connects the nodes of a sequence plan.
        delivery: how messages get to the nodes.

    Attributes:
        port: the control port.
    """

    def __init__(
        self,
        host: str,
        port: int,
        secret: Secret,
        factory: TransportFactory,
        delivery: Delivery = DIRECT,
    ) -> None:
        self._state = members.State()
        self._hellos: dict[str, messages.Hello] = {}
        self._identities: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}
        self._calls = Calls()
        self._changed = threading.Condition()
        self._followers: list[Callable[[str, bool], None]] = []
        self._id = uuid.uuid4().hex
        self._pinged_s = 0.0
        self._listener = Listener(host, port, secret, delivery)
        self.port = self._listener.port
        try:
            self._meeting = factory.serve(host)
            self._groups = Groups(factory.name, self._meeting.port)
        except BaseException:
            self._listener.close()
            raise
        self._listener.serve(self)

    # -- what callers use -------------------------------------------------------------------------

    @property
    def alive(self) -> tuple[str, ...]:
        """Names of the nodes alive, in the order they joined."""
        with self._changed:
            return self._state.alive

    def follow(self, follower: Callable[[str, bool], None]) -> None:
        """Let `follower(name, alive)` be called whenever a node joins or is lost; quickly."""
        self._followers = [*self._followers, follower]

    def unfollow(self, follower: Callable[[str, bool], None]) -> None:
        """Call `follower` no more."""
        self._followers = [each for each in self._followers if each != follower]

    def hello(self, name: str) -> messages.Hello:
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
        return self._calls.open()

    def end(self, call: Call) -> None:
        """Stop listening for answers."""
        self._calls.end(call)

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
        self._listener.send(identity, name, message, frames)

    def tell(self, names: Sequence[str], message: BaseModel) -> None:
        """Send a message that needs no answer to those of `names` that are alive."""
        with self._changed:
            known = [(self._identities[n], n) for n in names if n in self._state.alive]
        for identity, name in known:
            self._listener.send(identity, name, message)

    def confirm(self, names: Sequence[str], timeout_s: float) -> tuple[str, ...]:
        """Return those of `names` that answer now, in the same order.

        The death of a node is often known to its peers before the membership has noticed it. A dead
        connection shows in milliseconds; a frozen node costs `timeout_s`.
        """
        answered: set[str] = set()
        call = self._calls.open()
        try:
            self.tell(names, messages.Probe(request=call.request))
            deadline_s = time.monotonic() + timeout_s
            while waiting := [n for n in names if n not in answered and n in self.alive]:
                try:
                    answered.add(call.answer(deadline_s, waiting).name)
                except PeerLost:
                    continue
                except ClusterError:
                    break
        finally:
            self._calls.end(call)
        return tuple(name for name in names if name in answered)

    def group(self, call: Call, nodes: tuple[str, ...]) -> messages.Group:
        """Return the group in which exactly these nodes are connected, forming it if needed.

        Raises:
            PeerLost: one of them is not alive.
        """
        with self._changed:
            gone = [name for name in nodes if name not in self._state.alive]
            if gone:  # before anybody is told to wait for them
                raise PeerLost(f"{', '.join(gone)} is not in the cluster any more")
            since = [self._state.members[name].since for name in nodes]
            group, is_new = self._groups.of(nodes, since)
        if is_new:
            for name in nodes:
                self.send(name, messages.FormGroup(request=call.request, group=group))
        return group

    def drop_group(self, nodes: tuple[str, ...]) -> None:
        """Let the connections of these nodes be made afresh: they may be out of step."""
        with self._changed:
            closing = self._groups.drop(nodes)
        self._close_groups(closing)

    def report_lost(self, name: str, pid: int, reason: str) -> None:
        """Take note that a node's process is gone, unless another one has taken its place."""
        with self._changed:
            known = name in self._hellos and self._hellos[name].pid == pid
        if known:
            self._apply(members.Left(name, reason))

    def close(self) -> None:
        """Tell the nodes that the coordinator goes, and release everything. Safe to call twice."""
        self._calls.close()
        alive = self.alive
        self.tell(alive, messages.Stop())
        self._listener.close()
        for name in alive:
            self._apply(members.Left(name, "the cluster was closed"))

    # -- what the listener calls, on threads of its own --------------------------------------------

    def tick(self) -> None:
        """Look for nodes that fell silent, and for broken connections."""
        now_s = time.monotonic()
        self._apply(members.Tick(now_s))
        if now_s - self._pinged_s >= _PING_S:
            self._pinged_s = now_s
            self.tell(self.alive, messages.Ping())

    def unreachable(self, identity: bytes) -> None:
        """A node's connection is gone: its process ended, or its network did."""
        with self._changed:
            name = self._names.get(identity)
        if name is not None:
            self._apply(members.Left(name, "its connection broke"))

    def receive(self, identity: bytes, frames: list[Any]) -> None:
        """Admit a node, take note of its heartbeat, or pass its answer on.

        Raises:
            ClusterError: it is no message; whoever sent it is told.
        """
        try:
            message, rest = messages.decode(frames)
        except ClusterError as error:
            protocol = messages.protocol_of(frames)
            reason = str(error) if protocol is None else protocol_mismatch(protocol)
            self._listener.send(identity, "", messages.Refused(reason=reason))
            raise
        if isinstance(message, messages.Hello):
            self._admit(identity, message)
            return
        with self._changed:
            if isinstance(message, messages.Heartbeat):
                hello = self._hellos.get(message.name)
                current = hello is not None and hello.instance == message.instance
                name = message.name if current else None
            else:
                name = self._names.get(identity)
            known = name in self._state.alive
        if name is None or not known:
            self._listener.send(identity, "", messages.Unknown())
            return
        self._apply(members.Seen(name, time.monotonic()))
        self._calls.deliver(name, message, rest)

    # -- membership -------------------------------------------------------------------------------

    def _admit(self, identity: bytes, hello: messages.Hello) -> None:
        with self._changed:
            current = self._hellos.get(hello.name)
            alive = hello.name in self._state.alive
            if alive and current is not None and current.instance == hello.instance:
                self._welcome(hello.name)  # the first one was still under way
                return
            others = [self._hellos[name] for name in self._state.alive if name != hello.name]
            reason = mismatch(hello, others)
            if reason:
                self._listener.send(identity, hello.name, messages.Refused(reason=reason))
                return
            if not alive:
                self._names.pop(self._identities.get(hello.name, b""), None)
                self._identities[hello.name] = identity
                self._names[identity] = hello.name
                self._hellos[hello.name] = hello
        for action in self._apply(members.Joined(hello.name, time.monotonic())):
            if isinstance(action, members.Refuse):
                refused = messages.Refused(reason=action.reason)
                self._listener.send(identity, hello.name, refused)

    def _welcome(self, name: str) -> None:
        with self._changed:
            identity, since = self._identities[name], self._state.members[name].since
        welcome = messages.Welcome(coordinator=self._id, since=since)
        self._listener.send(identity, name, welcome)

    def _apply(self, event: members.Event) -> tuple[members.Action, ...]:
        with self._changed:
            self._state, actions = members.step(self._state, event)
            lost = [action for action in actions if isinstance(action, members.Lose)]
            closing = [self._groups.without(action.name) for action in lost]
            if actions:
                self._changed.notify_all()
        for survivors in closing:
            self._close_groups(survivors)
        for action in actions:
            if isinstance(action, members.Lose):
                self._calls.lost(action.name, action.reason)
                self._tell_followers(action.name, alive=False)
            elif isinstance(action, members.Admit):
                self._welcome(action.name)
                self._tell_followers(action.name, alive=True)
        return actions

    def _tell_followers(self, name: str, *, alive: bool) -> None:
        for follower in self._followers:
            follower(name, alive)

    def _close_groups(self, closing: Mapping[str, tuple[int, ...]]) -> None:
        for name, epochs in closing.items():
            self.tell([name], messages.CloseGroups(epochs=epochs))
