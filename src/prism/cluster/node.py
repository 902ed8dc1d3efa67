"""The node program: one process per device, told by the head what to load and run.

Two threads: this module's `Node` computes, its `_Line` talks to the head, so that heartbeats go on
while a forward pass runs. The process ends on Stop, when the head refuses it, or, started with
`parent_pid`, when that process is gone.
"""

from __future__ import annotations

import itertools
import os
import platform
import queue
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import zmq
from pydantic import BaseModel

import prism
from prism.cluster import control, tensors
from prism.cluster.keys import Secret
from prism.core import Plan, RunRecord
from prism.errors import ClusterError, ConfigError, PrismError
from prism.models.load import load
from prism.runtime.engine import Engine
from prism.transport.base import Transport
from prism.transport.gloo import GlooTransport, connect_store, epoch_store
from prism.transport.link import LinkShape, Medium
from prism.transport.shaped import ShapedTransport

_STORE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class EmulatedLink:
    """A node's place on an emulated medium of this machine.

    Attributes:
        shape: what the link does.
        medium: the air all nodes share.
        places: each node's index on the medium, by name.
    """

    shape: LinkShape
    medium: Medium
    places: dict[str, int]

    @classmethod
    def open(cls, text: str, path: Path, names: Sequence[str]) -> EmulatedLink | None:
        """Open the medium at `path` for the nodes `names`; None when `text` shapes nothing."""
        shape = LinkShape.parse(text)
        if shape == LinkShape():
            return None
        places = {name: index for index, name in enumerate(names)}
        return cls(shape, Medium(path, shape, len(names)), places)

    def arrival_s(self, sender: str, receiver: str, nbytes: int) -> float:
        """Reserve air for a message; return when it arrives. Nothing to emulate at home: 0."""
        if sender == receiver or not nbytes:
            return 0.0
        return self.medium.reserve(
            self.places[sender], nbytes, time.monotonic(), [self.places[receiver]]
        )


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How a node process is set up.

    Attributes:
        name: unique in the cluster.
        head: the head's control address, `tcp://HOST:PORT`.
        secret: the cluster secret.
        device: `auto`, `cpu` or a CUDA device.
        cores: cores this process is pinned to, for the record.
        link: an emulated link, on local clusters.
        home: name of the node that sits on the head's own device, for the emulated link.
        parent_pid: end when this process is gone; None on real devices.
    """

    name: str
    head: str
    secret: Secret
    device: str = "auto"
    cores: tuple[int, ...] = ()
    link: EmulatedLink | None = None
    home: str = ""
    parent_pid: int | None = None


def pick_device(text: str) -> str:
    """Return the torch device for `auto`, or the one asked for.

    Raises:
        ConfigError: there is no such device here.
    """
    if text == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {text!r} cannot be used here: {error}") from error
    return text


class Node:
    """Computes what the head asks for, one request at a time."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._device = pick_device(config.device)
        self._host, self._port = _host_and_port(config.head)
        self._address = address_towards(self._host, self._port)
        self._engines: dict[int, Engine] = {}
        self._transports: dict[int, Transport] = {}
        self._store: Any = None
        self._line = _Line(config, self._hello())

    def run(self) -> str:
        """Serve until told to stop; return why it ended."""
        self._line.start()
        try:
            while True:
                message, frames = self._line.inbox.get()
                if isinstance(message, control.Stop):
                    return "the head said stop"
                if isinstance(message, control.Refused):
                    return f"the head refused this node: {message.reason}"
                if isinstance(message, _Gone):
                    return message.reason
                self._serve(message, frames)
        finally:
            self._forget(None)
            self._line.close()

    def _serve(self, message: Any, frames: list[Any]) -> None:
        if isinstance(message, control.Forget):
            self._forget(message.epoch)
            return
        try:
            if isinstance(message, control.Load):
                self._load(message)
            elif isinstance(message, control.Run):
                self._run(message, frames)
        except PrismError as error:
            self._fail(message.request, type(error).__name__, str(error))
        except Exception as error:  # noqa: BLE001 - whatever a model raises must reach the caller
            self._fail(message.request, "NodeFailed", f"{type(error).__name__}: {error}")

    def _fail(self, request: int, error: str, reason: str) -> None:
        text = f"{self._config.name}: {reason}" if error == "NodeFailed" else reason
        self._line.send(control.Failed(request=request, error=error, message=text))

    def _load(self, message: control.Load) -> None:
        loaded = load(message.source, message.dtype, self._device)
        self._engines[message.model] = Engine(loaded, self._config.name)
        self._line.send(
            control.Loaded(
                request=message.request, fingerprint=loaded.fingerprint, dtype=message.dtype
            )
        )

    def _run(self, message: control.Run, frames: list[Any]) -> None:
        received_s = time.perf_counter()
        _sleep_until(message.arrives_s)
        inputs = tensors.unpack(message.inputs, frames)
        input_s = time.perf_counter() - received_s
        plan = Plan.parse(message.plan)
        transport = self._transport(message.group, message.timeout_s) if message.group else None
        try:
            execution = self._engines[message.model].run(
                inputs, plan, transport=transport, timeout_s=message.timeout_s
            )
        except ClusterError:
            self._forget(None)
            raise
        self._reply(message.request, execution.output, execution.record, input_s)

    def _reply(self, request: int, output: Any, record: RunRecord, input_s: float) -> None:
        description, frames = (None, []) if output is None else tensors.pack(output)
        nbytes = sum(frame.nbytes for frame in frames)
        arrives_s = 0.0
        if self._config.link is not None:
            arrives_s = self._config.link.arrival_s(self._config.name, self._config.home, nbytes)
        values = {**record.to_dict(), "input_s": input_s}
        done = control.Done(request=request, record=values, output=description, arrives_s=arrives_s)
        self._line.send(done, frames)

    def _transport(self, group: control.Group, timeout_s: float) -> Transport:
        if group.epoch not in self._transports:
            self._transports[group.epoch] = self._connect(group, timeout_s)
        return self._transports[group.epoch]

    def _connect(self, group: control.Group, timeout_s: float) -> Transport:
        if self._store is None:
            self._store = connect_store(self._host, group.store_port, _STORE_TIMEOUT_S)
        rank = group.members.index(self._config.name)
        gloo = GlooTransport(
            epoch_store(self._store, group.epoch),
            rank,
            len(group.members),
            timeout_s,
            self._address,
        )
        link = self._config.link
        if link is None:
            return gloo
        places = [link.places[name] for name in group.members]
        return ShapedTransport(gloo, link.shape, link.medium, places)

    def _forget(self, below: int | None) -> None:
        """Close the transports of epochs below `below`, or of all."""
        for epoch in [epoch for epoch in self._transports if below is None or epoch < below]:
            self._transports.pop(epoch).close()

    def _hello(self) -> control.Hello:
        return control.Hello(
            protocol=control.PROTOCOL,
            name=self._config.name,
            address=self._address,
            pid=os.getpid(),
            facts=control.NodeFacts(
                hardware=hardware_name(self._device),
                device=self._device,
                threads=torch.get_num_threads(),
                cores=self._config.cores,
                prism=prism.__version__,
                torch=torch.__version__,
                transformers=version("transformers"),
            ),
        )


@dataclass(frozen=True, slots=True)
class _Gone:
    """There is nobody left to work for."""

    reason: str


class _Line:
    """The thread that talks to the head: heartbeats out, messages in, replies out.

    Attributes:
        inbox: messages from the head, with their frames.
    """

    def __init__(self, config: NodeConfig, hello: control.Hello) -> None:
        self.inbox: queue.SimpleQueue[tuple[Any, list[Any]]] = queue.SimpleQueue()
        self._config = config
        self._hello = hello
        self._context: zmq.Context[Any] = zmq.Context()
        # zmq sockets belong to one thread; replies reach it through this pair.
        name = f"inproc://replies-{id(self)}"
        self._replies_in = self._context.socket(zmq.PAIR)
        self._replies_out = self._context.socket(zmq.PAIR)
        self._replies_in.bind(name)
        self._replies_out.connect(name)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._talk, name="prism-line", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, message: BaseModel, frames: Sequence[memoryview] = ()) -> None:
        """Send a message to the head; from the computing thread only."""
        self._replies_out.send_multipart(control.encode(message, frames), copy=False)

    def close(self) -> None:
        """Flush replies and end the thread."""
        self._closing.set()
        self._thread.join(timeout=2.0)
        self._replies_out.close(linger=0)
        if not self._thread.is_alive():
            self._context.term()

    def _talk(self) -> None:
        dealer = self._connect()
        poller = zmq.Poller()
        poller.register(dealer, zmq.POLLIN)
        poller.register(self._replies_in, zmq.POLLIN)
        joined, beat_s = False, 0.0
        while not self._closing.is_set():
            ready = dict(poller.poll(timeout=50 if not joined else 200))
            if self._replies_in in ready:
                dealer.send_multipart(self._replies_in.recv_multipart(copy=False), copy=False)
            if dealer in ready:
                joined = self._receive(dealer) or joined
            now = time.monotonic()
            if now - beat_s >= control.HEARTBEAT_S:
                beat_s = now
                # Until the head has admitted us, the hello is the heartbeat: it may start later.
                dealer.send_multipart(
                    control.encode(control.Heartbeat() if joined else self._hello)
                )
                self._check_parent()
        while self._replies_in.poll(0):
            dealer.send_multipart(self._replies_in.recv_multipart(copy=False), copy=False)
        dealer.close(linger=500)
        self._replies_in.close(linger=0)

    def _connect(self) -> zmq.Socket[bytes]:
        dealer = self._context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.IDENTITY, f"{self._config.name}-{os.getpid()}".encode())
        control.secure_client(dealer, self._config.secret)
        dealer.connect(self._config.head)
        return dealer

    def _receive(self, dealer: zmq.Socket[bytes]) -> bool:
        """Pass one message on; return whether it was the welcome."""
        raw = dealer.recv_multipart(copy=False)
        try:
            message, frames = control.decode([raw[0].bytes, *(frame.buffer for frame in raw[1:])])
        except ClusterError as error:
            self.inbox.put((_Gone(str(error)), []))
            return False
        if isinstance(message, control.Welcome):
            return True
        self.inbox.put((message, frames))
        return False

    def _check_parent(self) -> None:
        parent = self._config.parent_pid
        if parent is not None and os.getppid() != parent:
            self.inbox.put((_Gone("the process that started this node is gone"), []))


def address_towards(host: str, port: int) -> str:
    """Return the address of this machine by which it reaches `host`; sends nothing."""
    family, _, _, _, peer = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0])


def hardware_name(device: str) -> str:
    """Return what a person calls this machine's processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    board = Path("/proc/device-tree/model")
    if board.is_file():
        return board.read_text().strip("\0\n ")
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = (line for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
        for line in itertools.islice(names, 1):
            return line.partition(":")[2].strip()
    return platform.machine()


def _host_and_port(endpoint: str) -> tuple[str, int]:
    scheme, _, rest = endpoint.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not host or not port.isdecimal():
        raise ConfigError(f"the head's address must be tcp://HOST:PORT, not {endpoint!r}")
    return host.strip("[]"), int(port)


def _sleep_until(moment_s: float) -> None:
    while (left_s := moment_s - time.monotonic()) > 0:
        time.sleep(left_s)
