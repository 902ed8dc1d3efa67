"""A node's line to the coordinator: the thread that says hello, heartbeats, and carries messages.

It works while a forward pass runs, so that a busy node is not taken for a lost one. It joins again
by itself: after the coordinator lost sight of the node, and, on nodes that outlive a coordinator,
with the next.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import zmq
from pydantic import BaseModel

from prism.control import messages as control
from prism.control.keys import Secret
from prism.errors import ClusterError

_POLL_MS = 100
_CLOSE_TIMEOUT_S = 1.0
_FLUSH_MS = 300
_HINT_AFTER_S = 10.0
_DEAD_CONNECTION_MS = 10_000


@dataclass(frozen=True, slots=True)
class Ended:
    """The node shall end.

    Attributes:
        reason: why.
        refused: whether that is a failure.
    """

    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Rejoined:
    """The coordinator admitted the node; what was under way before is void.

    Attributes:
        new_coordinator: whether it is another coordinator, which knows nothing of the models here.
    """

    new_coordinator: bool


class Line:
    """The connections to the coordinator and the thread that serves them.

    Args:
        endpoint: the coordinator's control address.
        secret: the cluster secret.
        hello: what the node says of itself.
        outlives_coordinator: wait for the next coordinator when this one closes.

    Attributes:
        inbox: messages from the coordinator with their frames, `Rejoined` and `Ended`.
        horizon: groups of lower epochs will not be used again.
    """

    def __init__(
        self, endpoint: str, secret: Secret, hello: control.Hello, *, outlives_coordinator: bool
    ) -> None:
        self.inbox: queue.SimpleQueue[tuple[Any, list[Any]]] = queue.SimpleQueue()
        self.horizon = 0
        self._endpoint = endpoint
        self._secret = secret
        self._hello = hello
        self._outlives_coordinator = outlives_coordinator
        self._beat = control.Heartbeat(name=hello.name, instance=hello.instance)
        self._joined = False
        self._coordinator = ""
        self._since = 0
        self._context: zmq.Context[Any] = zmq.Context()
        # zmq sockets belong to one thread; replies reach it through this pair.
        self._replies_in = self._context.socket(zmq.PAIR)
        self._replies_out = self._context.socket(zmq.PAIR)
        self._replies_in.bind("inproc://replies")
        self._replies_out.connect("inproc://replies")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._talk, name="prism-line", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self, message: BaseModel, frames: Sequence[memoryview] = ()) -> None:
        """Send a message to the coordinator; from the computing thread only."""
        self._replies_out.send_multipart(control.encode(message, frames), copy=False)

    def close(self) -> None:
        """Flush replies and end the thread."""
        self._closing.set()
        self._thread.join(_CLOSE_TIMEOUT_S)
        self._replies_out.close(linger=0)

    def _talk(self) -> None:
        try:
            self._serve(self._connect("data"), self._connect("beat"))
        except Exception as error:
            logging.getLogger(__name__).exception("the line to the coordinator broke")
            self.inbox.put((Ended(f"the line to the coordinator broke: {error}", refused=True), []))

    def _serve(self, dealer: zmq.Socket[bytes], pulse: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        for each in (dealer, pulse, self._replies_in):
            poller.register(each, zmq.POLLIN)
        beat_s, hint_s = 0.0, time.monotonic() + _HINT_AFTER_S
        while not self._closing.is_set():
            ready = dict(poller.poll(_POLL_MS))
            if self._replies_in in ready:
                _offer(dealer, self._replies_in.recv_multipart(copy=False))
            for each in (dealer, pulse):
                if each in ready:
                    self._receive(each)
            now = time.monotonic()
            if now - beat_s >= control.HEARTBEAT_S:
                beat_s = now
                if self._joined:
                    _offer(pulse, control.encode(self._beat))
                else:
                    # The hello is repeated until it is answered: the coordinator may start later.
                    _offer(dealer, control.encode(self._hello))
            if not self._joined and not self._coordinator and now > hint_s:
                hint_s = float("inf")
                self._say(
                    f"no answer from {self._endpoint} yet; is the coordinator running there, "
                    f"with the same secret?"
                )
        while self._replies_in.poll(0):
            _offer(dealer, self._replies_in.recv_multipart(copy=False))
        for each in (dealer, pulse):
            each.close(linger=_FLUSH_MS)
        self._replies_in.close(linger=0)

    def _connect(self, purpose: str) -> zmq.Socket[bytes]:
        dealer: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        dealer.identity = f"{self._hello.name}-{self._hello.instance}-{purpose}".encode()
        # Nothing is kept for a coordinator that is not there: it would be stale when one comes.
        dealer.immediate = True
        dealer.ipv6 = "[" in self._endpoint
        # A network that went away without a word.
        dealer.tcp_maxrt = _DEAD_CONNECTION_MS
        control.secure_client(dealer, self._secret)
        dealer.connect(self._endpoint)
        return dealer

    def _receive(self, dealer: zmq.Socket[bytes]) -> None:
        raw = dealer.recv_multipart(copy=False)
        try:
            message, frames = control.decode([frame.buffer for frame in raw])
        except ClusterError as error:
            self.inbox.put((Ended(f"the coordinator sent what is {error}", refused=True), []))
            return
        if isinstance(message, control.Welcome):
            self._welcome(message)
        elif isinstance(message, control.Unknown):
            self._joined = False
        elif isinstance(message, control.Refused):
            reason = f"the coordinator refused {self._hello.name}: {message.reason}"
            self.inbox.put((Ended(reason, refused=True), []))
        elif isinstance(message, control.Stop):
            self._stop()
        elif not isinstance(message, control.Ping):
            if isinstance(message, control.Forget):
                self.horizon = max(self.horizon, message.epoch)
            self.inbox.put((message, frames))

    def _welcome(self, welcome: control.Welcome) -> None:
        self._joined = True
        if (welcome.coordinator, welcome.since) == (self._coordinator, self._since):
            return  # a hello was repeated while the first was answered
        new_coordinator = welcome.coordinator != self._coordinator
        if new_coordinator:
            self.horizon = 0
        self._coordinator, self._since = welcome.coordinator, welcome.since
        with contextlib.suppress(queue.Empty):
            while True:
                self.inbox.get_nowait()  # asked for before: nobody waits for it any more
        self.inbox.put((Rejoined(new_coordinator), []))
        self._say(f"joined {self._endpoint}")

    def _stop(self) -> None:
        if not self._outlives_coordinator:
            self.inbox.put((Ended("the coordinator closed"), []))
            return
        self._joined, self._coordinator = False, ""
        self.inbox.put((Rejoined(new_coordinator=True), []))
        self._say("the coordinator closed; waiting for the next")

    def _say(self, text: str) -> None:
        logging.getLogger(__name__).info("%s: %s", self._hello.name, text)


def _offer(socket: zmq.Socket[bytes], frames: list[Any]) -> None:
    """Send now or never: what cannot be sent has no coordinator to go to."""
    with contextlib.suppress(zmq.Again):
        socket.send_multipart(frames, zmq.DONTWAIT, copy=False)
