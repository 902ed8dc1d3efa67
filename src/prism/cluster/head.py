"""The head: owns requests, membership and the meeting point of the nodes.

One thread talks to the nodes and keeps the membership; callers send through it and wait on a queue
of their own. Any failure of a node ends the attempt, opens a new epoch, and the same request is
answered by those who are left.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq
from pydantic import BaseModel
from zmq.auth.thread import ThreadAuthenticator

from prism import errors
from prism.cluster import control
from prism.cluster import membership as members
from prism.cluster.keys import Secret
from prism.errors import ClusterError, ConfigError, NodeFailed, PeerLost
from prism.transport.gloo import serve_store

_TICK_MS = 100
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


class Head:
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
        self._groups: dict[tuple[str, ...], control.Group] = {}
        self._epochs = itertools.count(1)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._context: zmq.Context[Any] = zmq.Context()
        self._store = serve_store(host, 0, _STORE_TIMEOUT_S)
        self._authenticator = self._authenticate(secret)
        self._router = self._listen(host, port, secret)
        endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.port = int(endpoint.rpartition(":")[2])
        self._outbox_in, self._outbox_out = self._pair()
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._talk, name="prism-head", daemon=True)
        self._thread.start()

    # -- what callers use -------------------------------------------------------------------------

    @property
    def alive(self) -> tuple[str, ...]:
        """Names of the nodes alive, in the order they joined."""
        with self._changed:
            return self._state.alive

    def facts(self, name: str) -> control.NodeFacts:
        """Return what a node said of itself when it joined."""
        with self._changed:
            return self._hellos[name].facts

    def pid(self, name: str) -> int:
        """Return a node's process id on its own machine."""
        with self._changed:
            return self._hellos[name].pid

    def wait_for(self, names: Sequence[str], timeout_s: float) -> tuple[str, ...]:
        """Wait until all of `names` are alive; return those still missing after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while missing := tuple(name for name in names if name not in self._state.alive):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    return tuple(name for name in names if name not in self._state.alive)
            return missing

    def call(self) -> Call:
        """Open a question; close it with `end`."""
        call = Call(next(self._numbers))
        with self._changed:
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
                raise PeerLost(f"{name} is not in the cluster; alive: {', '.join(self.alive)}")
            identity = self._identities[name]
        with self._sending:
            self._outbox_out.send_multipart(
                [identity, *control.encode(message, frames)], copy=False
            )

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

    def group(self, names: tuple[str, ...]) -> control.Group:
        """Return the epoch in which exactly these nodes are connected, opening one if needed."""
        if names not in self._groups:
            self._groups[names] = control.Group(
                epoch=next(self._epochs), members=names, store_port=self._store.port
            )
        return self._groups[names]

    def new_epoch(self) -> None:
        """Let every connection among the nodes be made afresh, after a failure."""
        self._groups.clear()
        horizon = next(self._epochs)
        for name in self.alive:
            self.send(name, control.Forget(epoch=horizon))

    def report_lost(self, name: str, reason: str) -> None:
        """Take note that a node is gone, learned from outside the control plane."""
        self._apply(members.Left(name, reason))

    def close(self) -> None:
        """Tell the nodes to stop, and release everything. Safe to call twice."""
        if self._closing.is_set():
            return
        for name in self.alive:
            self.send(name, control.Stop())
        self._closing.set()
        self._thread.join(timeout=3.0)
        self._outbox_out.close(linger=0)
        self._authenticator.stop()
        self._context.destroy(linger=0)

    # -- the talking thread -----------------------------------------------------------------------

    def _talk(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._outbox_in, zmq.POLLIN)
        while not self._closing.is_set():
            ready = dict(poller.poll(timeout=_TICK_MS))
            self._drain_outbox()
            if self._router in ready:
                self._receive()
            self._apply(members.Tick(time.monotonic()))
        self._drain_outbox()
        self._router.close(linger=500)
        self._outbox_in.close(linger=0)

    def _drain_outbox(self) -> None:
        while self._outbox_in.poll(0):
            self._router.send_multipart(self._outbox_in.recv_multipart(copy=False), copy=False)

    def _receive(self) -> None:
        identity, *raw = self._router.recv_multipart(copy=False)
        try:
            message, frames = control.decode([raw[0].bytes, *(frame.buffer for frame in raw[1:])])
        except (ClusterError, IndexError):
            return  # it holds the secret but speaks another protocol; its hello was refused
        if isinstance(message, control.Hello):
            self._admit(identity.bytes, message)
            return
        name = self._names.get(identity.bytes)
        if name is None:
            return
        self._apply(members.Seen(name, time.monotonic()))
        request = getattr(message, "request", None)
        with self._changed:
            call = self._calls.get(request) if request is not None else None
        if call is not None:
            call.answers.put((name, message, frames))

    def _admit(self, identity: bytes, hello: control.Hello) -> None:
        if self._identities.get(hello.name) == identity and hello.name in self.alive:
            self._reply(identity, control.Welcome())  # the first welcome was still under way
            return
        reason = self._mismatch(hello)
        if reason:
            self._reply(identity, control.Refused(reason=reason))
            return
        with self._changed:
            alive = hello.name in self._state.alive
            if not alive:
                self._identities[hello.name] = identity
                self._names[identity] = hello.name
                self._hellos[hello.name] = hello
        for action in self._apply(members.Joined(hello.name, time.monotonic())):
            if isinstance(action, members.Admit):
                self._reply(identity, control.Welcome())
            elif isinstance(action, members.Refuse):
                self._reply(identity, control.Refused(reason=action.reason))

    def _mismatch(self, hello: control.Hello) -> str | None:
        if hello.protocol != control.PROTOCOL:
            return f"it speaks protocol {hello.protocol}, the head {control.PROTOCOL}"
        with self._changed:
            first = next((self._hellos[name] for name in self._state.alive), None)
        if first is None:
            return None
        for field_name in ("prism", "torch", "transformers"):
            here, there = getattr(first.facts, field_name), getattr(hello.facts, field_name)
            if here.partition("+")[0] != there.partition("+")[0]:
                return (
                    f"{hello.name} has {field_name} {there}, {first.name} has {here}; "
                    f"install the same version on both"
                )
        return None

    def _reply(self, identity: bytes, message: BaseModel) -> None:
        self._router.send_multipart([identity, *control.encode(message)])

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

    # -- sockets ----------------------------------------------------------------------------------

    def _authenticate(self, secret: Secret) -> ThreadAuthenticator:
        authenticator = ThreadAuthenticator(self._context)
        authenticator.start()
        authenticator.configure_curve_callback(
            domain=control.ZAP_DOMAIN, credentials_provider=_OnlyKey(secret.public)
        )
        return authenticator

    def _listen(self, host: str, port: int, secret: Secret) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        control.secure_server(router, secret)
        try:
            router.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}); give a free port"
            ) from error
        return router

    def _pair(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        name = f"inproc://outbox-{id(self)}"
        inside, outside = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        inside.bind(name)
        outside.connect(name)
        return inside, outside


class _OnlyKey:
    """Admits holders of the cluster secret."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public


def _error_named(name: str) -> type[errors.PrismError]:
    found: Mapping[str, Any] = vars(errors)
    error = found.get(name)
    return error if isinstance(error, type) and issubclass(error, errors.PrismError) else NodeFailed
