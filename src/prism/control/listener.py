"""The coordinator's sockets: one encrypted address for all nodes, and the thread that serves it.

Owns who may connect and how frames get in and out; what they mean is the coordinator's business.
No message can end the thread or fill the log. zmq sockets belong to one thread, so other threads
hand their frames to it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import zmq
from pydantic import BaseModel
from zmq.auth.thread import ThreadAuthenticator

from prism.control import messages as control
from prism.control.delivery import DIRECT, Delivery
from prism.control.keys import ZAP_DOMAIN, Secret, secure_server
from prism.control.malformed import MalformedLog
from prism.errors import ClusterError, ConfigError

_TICK_MS = 100
_CLOSE_TIMEOUT_S = 2.0
_FLUSH_MS = 1000


class Handler(Protocol):
    """Who decides what frames mean.

    Called by one thread at a time, which is the listener's or the delivery's.
    """

    def receive(self, identity: bytes, frames: list[Any]) -> None:
        """Take the frames that came from a connection.

        Raises:
            ClusterError: they are no message; the listener counts it and goes on.
        """

    def tick(self) -> None:
        """Take note that time passed."""

    def unreachable(self, identity: bytes) -> None:
        """Take note that a connection is broken."""


class Listener:
    """Serves one address.

    Args:
        host: address to listen on.
        port: control port; 0 picks a free one.
        secret: the cluster secret.
        delivery: how frames get to the nodes and here; closed with the listener.

    Attributes:
        port: control port.

    Raises:
        ConfigError: nobody can listen there.
    """

    def __init__(self, host: str, port: int, secret: Secret, delivery: Delivery = DIRECT) -> None:
        self._delivery = delivery
        self._malformed = MalformedLog("the coordinator")
        self._context: zmq.Context[Any] = zmq.Context()
        self._closing = threading.Event()
        self._sending = threading.Lock()
        self._handling = threading.Lock()
        self._authenticator = ThreadAuthenticator(self._context)
        try:
            self._authenticator.start()
            self._authenticator.configure_curve_callback(
                domain=ZAP_DOMAIN, credentials_provider=_OnlyKey(secret.public)
            )
            self._router = self._listen(host, port, secret)
            self._outbox_in, self._outbox_out = self._pair()
        except BaseException:
            self._authenticator.stop()
            self._context.destroy(linger=0)
            raise
        endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.port = int(endpoint.rpartition(":")[2])

    def serve(self, handler: Handler) -> None:
        """Start the thread."""
        self._handler = handler
        self._thread = threading.Thread(target=self._talk, name="prism-listener", daemon=True)
        self._thread.start()

    def send(
        self, identity: bytes, name: str, message: BaseModel, frames: Sequence[memoryview] = ()
    ) -> None:
        """Send a message; from any thread. Frames must not change before it is answered.

        Args:
            identity: the connection.
            name: of the node at its other end; "" before it is known.
            message: what to say.
            frames: what follows it.
        """
        with self._sending:
            if not self._closing.is_set():
                sent = self._delivery.outgoing(name, control.encode(message, frames))
                self._outbox_out.send_multipart([identity, *sent], copy=False)

    def close(self) -> None:
        """Flush what is to be sent and release everything. Safe to call twice."""
        with self._sending:
            if self._closing.is_set():
                return
            self._closing.set()
        self._thread.join(_CLOSE_TIMEOUT_S)
        self._delivery.close()
        self._outbox_out.close(linger=0)
        self._authenticator.stop()
        self._context.destroy(linger=0)

    def _talk(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._outbox_in, zmq.POLLIN)
        ticked_s = 0.0
        while not self._closing.is_set():
            ready = dict(poller.poll(timeout=_TICK_MS))
            self._drain_outbox(lambda identity: self._tell(self._handler.unreachable, identity))
            if self._router in ready:
                identity, *raw = self._router.recv_multipart(copy=False)
                self._delivery.incoming(
                    identity.bytes.decode("latin-1"),
                    [frame.buffer for frame in raw],
                    partial(self._tell, self._handler.receive, identity.bytes),
                )
            # Not after every message: whoever waits for one needs this thread to stand still.
            now_s = time.monotonic()
            if now_s - ticked_s >= _TICK_MS / 1e3:
                ticked_s = now_s
                self._tell(self._handler.tick)
                self._malformed.report()
        self._drain_outbox(lambda identity: None)
        self._router.close(linger=_FLUSH_MS)
        self._outbox_in.close(linger=0)

    def _tell(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call the handler; whatever it raises, the thread lives on.

        Without it every request would wait for its deadline.
        """
        with self._handling:
            try:
                action(*arguments)
            except ClusterError as error:
                self._malformed.add(str(error))
            except Exception:
                logging.getLogger(__name__).exception("the coordinator could not handle a message")

    def _drain_outbox(self, unreachable: Callable[[bytes], None]) -> None:
        while True:
            try:
                frames = self._outbox_in.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            try:
                self._router.send_multipart(frames, zmq.DONTWAIT, copy=False)
            except zmq.ZMQError:
                # No such connection any more, or a peer that has not read for a thousand messages.
                unreachable(frames[0].bytes)

    def _listen(self, host: str, port: int, secret: Secret) -> zmq.Socket[bytes]:
        router: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        secure_server(router, secret)
        router.router_mandatory = True
        router.router_handover = True  # a node that reconnects takes its old connection's place
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            router.ipv6 = family == socket.AF_INET6
            numeric = f"[{address[0]}]" if router.ipv6 else address[0]
            router.bind(f"tcp://{numeric}:{port or '*'}")
        except (zmq.ZMQError, OSError) as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}); give a free port and an "
                f"address of this machine"
            ) from error
        return router

    def _pair(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        inside, outside = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        # Unlimited: the thread that empties it also sends, and must not wait for itself.
        inside.rcvhwm = outside.sndhwm = 0
        inside.bind("inproc://outbox")
        outside.connect("inproc://outbox")
        return inside, outside


class _OnlyKey:
    """Admits holders of the cluster secret."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public
