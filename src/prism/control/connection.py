"""A node's connection to the coordinator: says hello, sends heartbeats, carries messages.

Its thread works while a forward pass runs, so that a busy node is not taken for a lost one. It
joins again by itself: after the coordinator lost sight of the node, and, on nodes that outlive a
coordinator, with the next.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import zmq
from pydantic import BaseModel

from prism.control import messages as control
from prism.control.delivery import DIRECT, Delivery
from prism.control.keys import Secret, secure_client
from prism.control.malformed import MalformedLog
from prism.errors import ClusterError

_POLL_MS = 100
_CLOSE_TIMEOUT_S = 1.0
_FLUSH_MS = 300
_HINT_AFTER_S = 10.0
_DEAD_CONNECTION_MS = 10_000


class Handler(Protocol):
    """Who does what the coordinator asks for.

    Called by one thread at a time, which is the connection's or the delivery's; it must be quick,
    since heartbeats wait for it.
    """

    def receive(self, message: control.Message, frames: list[Any]) -> None:
        """Take what the coordinator asks for."""

    def reset(self, new_coordinator: bool) -> None:
        """Take note that what was asked for before is void: nobody waits for it any more.

        Args:
            new_coordinator: the next messages come from another one, which knows nothing of the
                models here.
        """

    def ended(self, reason: str, refused: bool) -> None:
        """Take note that the node shall end; `refused` when that is a failure."""


class Connection:
    """The connection to the coordinator and the thread that serves it.

    Args:
        endpoint: the coordinator's control address.
        secret: the cluster secret.
        hello: what the node says of itself.
        outlives_coordinator: wait for the next coordinator when this one closes.
        delivery: how frames get to the coordinator and here; closed with the connection.
    """

    def __init__(
        self,
        endpoint: str,
        secret: Secret,
        hello: control.Hello,
        *,
        outlives_coordinator: bool,
        delivery: Delivery = DIRECT,
    ) -> None:
        self._endpoint = endpoint
        self._secret = secret
        self._hello = hello
        self._outlives_coordinator = outlives_coordinator
        self._delivery = delivery
        self._beat = control.Heartbeat(name=hello.name, instance=hello.instance)
        self._malformed = MalformedLog(hello.name)
        self._joined = False
        self._coordinator = ""
        self._since = 0
        self._context: zmq.Context[Any] = zmq.Context()
        self._outbox_in, self._outbox_out = self._pair()
        self._closing = threading.Event()
        self._sending = threading.Lock()
        self._handling = threading.Lock()
        self._thread = threading.Thread(target=self._talk, name="prism-connection", daemon=True)

    def serve(self, handler: Handler) -> None:
        """Start the thread."""
        self._handler = handler
        self._thread.start()

    def send(self, message: BaseModel, frames: Sequence[memoryview] = ()) -> None:
        """Send a message to the coordinator; from any thread."""
        with self._sending:
            if not self._closing.is_set():
                sent = self._delivery.outgoing("", control.encode(message, frames))
                self._outbox_out.send_multipart(sent, copy=False)

    def close(self) -> None:
        """Flush what is to be sent and end the thread. Safe to call twice."""
        with self._sending:
            if self._closing.is_set():
                return
            self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_TIMEOUT_S)
        self._delivery.close()
        self._outbox_out.close(linger=0)

    def _talk(self) -> None:
        try:
            self._serve(self._connect("data"), self._connect("beat"))
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End a node that would otherwise be deaf without knowing."""
        logging.getLogger(__name__).exception("the connection to the coordinator failed")
        self._handler.ended(f"the connection to the coordinator failed: {error}", refused=True)

    def _serve(self, data: zmq.Socket[bytes], beat: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        for each in (data, beat, self._outbox_in):
            poller.register(each, zmq.POLLIN)
        beat_s, hint_s = 0.0, time.monotonic() + _HINT_AFTER_S
        while not self._closing.is_set():
            ready = dict(poller.poll(_POLL_MS))
            self._drain_outbox(data)
            for purpose, each in (("data", data), ("beat", beat)):
                if each in ready:
                    raw = each.recv_multipart(copy=False)
                    frames = [frame.buffer for frame in raw]
                    self._delivery.incoming(purpose, frames, self._receive)
            now = time.monotonic()
            if now - beat_s >= control.HEARTBEAT_S:
                beat_s = now
                self._show_itself(data, beat)
                self._malformed.report()
            if not self._joined and not self._coordinator and now > hint_s:
                hint_s = float("inf")
                self._say(
                    f"no answer from {self._endpoint} yet; is the coordinator running there, "
                    f"with the same secret?"
                )
        self._drain_outbox(data)
        for each in (data, beat):
            each.close(linger=_FLUSH_MS)
        self._outbox_in.close(linger=0)

    def _show_itself(self, data: zmq.Socket[bytes], beat: zmq.Socket[bytes]) -> None:
        # The hello is repeated until it is answered: the coordinator may start later.
        socket, message = (beat, self._beat) if self._joined else (data, self._hello)
        _offer(socket, self._delivery.outgoing("", control.encode(message)))

    def _drain_outbox(self, data: zmq.Socket[bytes]) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                _offer(data, self._outbox_in.recv_multipart(zmq.DONTWAIT, copy=False))

    def _pair(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        # zmq sockets belong to one thread; what others send reaches it through this pair.
        inside, outside = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        # Unlimited: the thread that empties it also sends, and must not wait for itself.
        inside.rcvhwm = outside.sndhwm = 0
        inside.bind("inproc://outbox")
        outside.connect("inproc://outbox")
        return inside, outside

    def _connect(self, purpose: str) -> zmq.Socket[bytes]:
        dealer: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        dealer.identity = f"{self._hello.name}-{self._hello.instance}-{purpose}".encode()
        # Nothing is kept for a coordinator that is not there: it would be stale when one comes.
        dealer.immediate = True
        dealer.ipv6 = "[" in self._endpoint
        # A network that went away without a word.
        dealer.tcp_maxrt = _DEAD_CONNECTION_MS
        secure_client(dealer, self._secret)
        dealer.connect(self._endpoint)
        return dealer

    def _receive(self, raw: list[Any]) -> None:
        try:
            message, frames = control.decode(raw)
        except ClusterError as error:
            self._malformed.add(str(error))
            return
        with self._handling:
            try:
                self._take(message, frames)
            except Exception as error:
                self._fail(error)

    def _take(self, message: control.Message, frames: list[Any]) -> None:
        if isinstance(message, control.Welcome):
            self._welcome(message)
        elif isinstance(message, control.Unknown):
            self._joined = False
        elif isinstance(message, control.Refused):
            reason = f"the coordinator refused {self._hello.name}: {message.reason}"
            self._handler.ended(reason, refused=True)
        elif isinstance(message, control.Stop):
            self._stop()
        elif not isinstance(message, control.Ping):
            self._handler.receive(message, frames)

    def _welcome(self, welcome: control.Welcome) -> None:
        self._joined = True
        if (welcome.coordinator, welcome.since) == (self._coordinator, self._since):
            return  # a hello was repeated while the first was answered
        new_coordinator = welcome.coordinator != self._coordinator
        self._coordinator, self._since = welcome.coordinator, welcome.since
        self._handler.reset(new_coordinator)
        self._say(f"joined {self._endpoint}")

    def _stop(self) -> None:
        if not self._outlives_coordinator:
            self._handler.ended("the coordinator closed", refused=False)
            return
        self._joined, self._coordinator = False, ""
        self._handler.reset(new_coordinator=True)
        self._say("the coordinator closed; waiting for the next")

    def _say(self, text: str) -> None:
        logging.getLogger(__name__).info("%s: %s", self._hello.name, text)


def _offer(socket: zmq.Socket[bytes], frames: list[Any]) -> None:
    """Send now or never: what cannot be sent has no coordinator to go to."""
    with contextlib.suppress(zmq.Again):
        socket.send_multipart(frames, zmq.DONTWAIT, copy=False)
