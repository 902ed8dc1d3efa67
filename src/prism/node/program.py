"""The node program: one process per device, told by the coordinator what to load and run.

The thread that calls `Node.run` computes, one message at a time; `Line` talks to the coordinator.
"""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

from prism.control import codec as tensors
from prism.control import messages as control
from prism.control.connection import Ended, Line, Rejoined
from prism.control.keys import Secret
from prism.emulation.medium import wait_until
from prism.emulation.place import EmulatedLink
from prism.emulation.shaped import ShapedTransport
from prism.energy import meter
from prism.engine.engine import Engine
from prism.errors import ClusterError, PrismError
from prism.models.load import load
from prism.node.hardware import address_towards, facts_of, pick_device
from prism.plan import Plan
from prism.record import RunRecord
from prism.transport.base import Transport
from prism.transport.gloo import GlooTransport, connect_store, epoch_store
from prism.transport.measure import exchange_times

_STORE_TIMEOUT_S = 5.0
# All members are told to meet at the same time, with nothing to do but that.
_MEET_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How a node process is set up.

    Attributes:
        name: unique in the cluster.
        coordinator: the coordinator's control address, `tcp://HOST:PORT`.
        secret: the cluster secret.
        device: `auto`, `cpu` or a CUDA device.
        cores: cores this process is pinned to, for the record.
        link: an emulated link, on local clusters.
        home: name of the node that sits on the coordinator's own device, for the emulated link.
        energy: which meter to read, as `prism.energy.meter` takes it.
        outlives_coordinator: wait for the next coordinator when this one closes.
    """

    name: str
    coordinator: str
    secret: Secret
    device: str = "auto"
    cores: tuple[int, ...] = ()
    link: EmulatedLink | None = None
    home: str = ""
    energy: str = "auto"
    outlives_coordinator: bool = True


class Node:
    """Computes what the coordinator asks for, one request at a time.

    Raises:
        ConfigError: the coordinator's address or the device cannot be used.
    """

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._host, port = control.host_and_port(config.coordinator)
        self._address = address_towards(self._host, port)
        self._device = pick_device(config.device)
        self._meter = meter(config.energy, node=config.name, device=self._device)
        self._engines: dict[int, Engine] = {}
        self._transports: dict[int, Transport] = {}
        self._store: Any = None
        self._line = Line(
            config.coordinator,
            config.secret,
            self._hello(),
            outlives_coordinator=config.outlives_coordinator,
        )

    def run(self) -> str:
        """Serve until told to stop; return why it ended.

        Raises:
            ClusterError: the coordinator refused this node.
        """
        self._line.start()
        try:
            while True:
                message, frames = self._line.inbox.get()
                if isinstance(message, Ended):
                    if message.refused:
                        raise ClusterError(message.reason)
                    return message.reason
                self._serve(message, frames)
        finally:
            self._forget(None)
            self._line.close()

    def stop(self, reason: str) -> None:
        """Let `run` return as soon as it can; from any thread."""
        self._line.inbox.put((Ended(reason), []))

    def _serve(self, message: Any, frames: list[Any]) -> None:
        if isinstance(message, Rejoined):
            self._rejoin(message)
        elif isinstance(message, control.Forget):
            self._forget(message.epoch)
        else:
            try:
                if isinstance(message, control.Load):
                    self._load(message)
                elif isinstance(message, control.FormGroup):
                    self._meet(message.group)
                elif isinstance(message, control.Run):
                    self._run(message, frames)
                elif isinstance(message, control.Probe):
                    self._answer_probe(message)
                elif isinstance(message, control.TimeExchanges):
                    self._time_exchanges(message)
            except PrismError as error:
                self._fail(message.request, type(error).__name__, str(error))
            except Exception as error:  # whatever a model raises must reach the caller
                self._fail(message.request, "NodeFailed", f"{type(error).__name__}: {error}")

    def _fail(self, request: int, error: str, reason: str) -> None:
        text = f"{self._config.name}: {reason}" if error == "NodeFailed" else reason
        self._line.send(control.Failed(request=request, error=error, message=text))

    def _rejoin(self, rejoined: Rejoined) -> None:
        self._forget(None)
        self._store = None
        if rejoined.new_coordinator:
            self._engines.clear()

    def _load(self, message: control.Load) -> None:
        loaded = load(message.source, message.dtype, self._device)
        self._engines[message.model] = Engine(loaded, self._config.name)
        self._line.send(
            control.Loaded(
                request=message.request, fingerprint=loaded.fingerprint, dtype=message.dtype
            )
        )

    def _run(self, message: control.Run, frames: list[Any]) -> None:
        try:
            engine, transport = self._engine(message.model), self._transport(message.epoch)
            received_s = time.perf_counter()
            wait_until(message.arrives_s)
            inputs = tensors.unpack(message.inputs, frames)
            input_s = time.perf_counter() - received_s
            with self._meter.window() as window:
                execution = engine.run(
                    inputs,
                    Plan.parse(message.plan),
                    transport=transport,
                    timeout_s=message.timeout_s,
                )
                window.busy(seconds=execution.record.compute_s)
        except BaseException:
            # The others wait for frames that will not come: the closed connection tells them.
            if message.epoch is not None and message.epoch in self._transports:
                self._transports.pop(message.epoch).close()
            raise
        reading = window.reading
        record = replace(
            execution.record,
            input_s=input_s,
            energy_j=reading.joules,
            energy_scope=reading.scope if reading.reason is None else reading.reason,
            energy_domain=reading.domain or None,
            energy_quality=reading.quality,
        )
        self._reply(message.request, execution.output, record)

    def _engine(self, model: int) -> Engine:
        if model not in self._engines:
            raise ClusterError(f"{self._config.name} has not loaded model {model}; load it first")
        return self._engines[model]

    def _reply(self, request: int, output: Any, record: RunRecord) -> None:
        description, frames = (None, []) if output is None else tensors.pack(output)
        done = control.Done(
            request=request,
            record=record.to_dict(),
            output=description,
            arrives_s=self._arrival_s(sum(frame.nbytes for frame in frames)),
        )
        self._line.send(done, frames)

    def _arrival_s(self, nbytes: int) -> float:
        """Return when an answer of so many bytes reaches the coordinator over an emulated link."""
        link = self._config.link
        return link.arrival_s(self._config.name, self._config.home, nbytes) if link else 0.0

    def _answer_probe(self, probe: control.Probe) -> None:
        wait_until(probe.arrives_s)
        self._line.send(control.Done(request=probe.request, arrives_s=self._arrival_s(1)))

    def _time_exchanges(self, message: control.TimeExchanges) -> None:
        transport = self._transport(message.epoch)
        assert transport is not None
        times_s = exchange_times(transport, message.sizes, message.repeats, message.senders)
        self._line.send(control.ExchangesTimed(request=message.request, times_s=tuple(times_s)))

    def _transport(self, epoch: int | None) -> Transport | None:
        if epoch is None:
            return None
        if epoch not in self._transports:
            raise ClusterError(f"{self._config.name} has left epoch {epoch}; form a new one")
        return self._transports[epoch]

    def _meet(self, group: control.Group) -> None:
        if group.epoch < self._line.horizon:
            return  # given up while this node was busy or frozen
        try:
            self._transports[group.epoch] = self._connect(group)
        except ClusterError:
            self._store = None  # it may be the store's connection that broke
            raise

    def _connect(self, group: control.Group) -> Transport:
        if self._store is None:
            self._store = connect_store(self._host, group.store_port, _STORE_TIMEOUT_S)
        gloo = GlooTransport(
            epoch_store(self._store, group.epoch),
            group.members.index(self._config.name),
            len(group.members),
            _MEET_TIMEOUT_S,
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
        link = self._config.link
        return control.Hello(
            protocol=control.PROTOCOL,
            name=self._config.name,
            instance=uuid.uuid4().hex,
            address=self._address,
            pid=os.getpid(),
            link="none" if link is None else str(link.shape),
            facts=facts_of(self._device, self._config.cores),
        )
