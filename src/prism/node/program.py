"""The node program: one process per device, told by the coordinator what to load and run.

Three threads, so that nothing slow keeps anything quick waiting. The connection's receives, answers
probes at once and marks what is given up; the loader's brings models in and lets go of them; the
one that calls `Node.run` computes, one task at a time and in order.
"""

from __future__ import annotations

import os
import queue
import uuid
from dataclasses import dataclass, field
from typing import Any

from prism.control import messages as control
from prism.control.connection import Connection
from prism.control.delivery import DIRECT, Delivery
from prism.control.keys import Secret
from prism.energy import meter
from prism.errors import ClusterError
from prism.models.backends import EAGER, check_backend
from prism.node.compute import COMPUTED, Computer
from prism.node.groups import Groups
from prism.node.hardware import address_towards, facts_of, pick_device
from prism.node.loader import Loader
from prism.node.memory import keep_freed_memory
from prism.node.tasks import Task, Tasks
from prism.transport.factory import GlooFactory, TransportFactory


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How a node process is set up.

    Attributes:
        name: unique in the cluster.
        coordinator: the coordinator's control address, `tcp://HOST:PORT`.
        secret: the cluster secret.
        device: `auto`, `cpu` or a CUDA device.
        cores: cores this process is pinned to, for the record.
        energy: which meter to read, as `prism.energy.meter` takes it.
        outlives_coordinator: wait for the next coordinator when this one closes.
        delivery: how control messages get to the coordinator and here.
        factory: makes the transports to the other nodes.
        backend: what runs models; see `prism.models.backends`.
        emulate_half: allow half precision on a processor that emulates it.
    """

    name: str
    coordinator: str
    secret: Secret
    device: str = "auto"
    cores: tuple[int, ...] = ()
    energy: str = "auto"
    outlives_coordinator: bool = True
    delivery: Delivery = DIRECT
    factory: TransportFactory = field(default_factory=GlooFactory)
    backend: str = EAGER.name
    emulate_half: bool = False


class Node:
    """Does what the coordinator asks for.

    Raises:
        ConfigError: the coordinator's address, the device or the backend cannot be used.
    """

    def __init__(self, config: NodeConfig) -> None:
        host, port = control.host_and_port(config.coordinator)
        address = address_towards(host, port)
        device = pick_device(config.device)
        check_backend(config.backend)
        self._connection = Connection(
            config.coordinator,
            config.secret,
            _hello(config, address, device),
            outlives_coordinator=config.outlives_coordinator,
            delivery=config.delivery,
        )
        self._tasks = Tasks(config.name, self._connection.send)
        self._groups = Groups(config.name, host, address, config.factory)
        self._loader = Loader(
            config.name,
            device,
            self._tasks,
            config.backend,
            emulate=config.emulate_half,
        )
        self._computer = Computer(
            self._tasks,
            self._loader,
            self._groups,
            meter(config.energy, node=config.name, device=device),
        )
        self._to_compute: queue.SimpleQueue[Task | None] = queue.SimpleQueue()  # None: the end
        self._end: tuple[str, bool] | None = None

    def run(self) -> str:
        """Serve until told to stop; return why it ended.

        Raises:
            ClusterError: the coordinator refused this node.
        """
        keep_freed_memory()
        self._loader.start()
        self._connection.serve(self)
        try:
            while (task := self._to_compute.get()) is not None:
                self._computer.do(task)
        finally:
            self._groups.close_all()
            self._loader.close()
            self._connection.close()
        assert self._end is not None
        reason, refused = self._end
        if refused:
            raise ClusterError(reason)
        return reason

    def stop(self, reason: str) -> None:
        """Let `run` return as soon as it can; from any thread."""
        self.ended(reason, refused=False)

    # -- what the connection calls -----------------------------------------------------------------

    def receive(self, message: control.Message, frames: list[Any]) -> None:
        """Do at once what is quick, and queue the rest where it belongs."""
        if isinstance(message, control.Probe):
            self._connection.send(control.Done(request=message.request))
        elif isinstance(message, control.Announce):
            self._tasks.announce(message.request)
        elif isinstance(message, control.Rest):
            self._tasks.add_rest(message, frames)
        elif isinstance(message, control.Cancel):
            self._tasks.cancel(message.request)
        elif isinstance(message, control.CloseGroups):
            self._groups.close(message.epochs)
        elif isinstance(message, control.Load | control.Unload):
            self._loader.submit(self._tasks.add(message))
        elif isinstance(message, COMPUTED):
            if isinstance(message, control.FormGroup):
                self._groups.announce(message.group.epoch)
            self._to_compute.put(self._tasks.add(message, frames))

    def reset(self, new_coordinator: bool) -> None:
        """Drop what was asked for before; with a new coordinator the models, too."""
        self._tasks.void_all()
        self._groups.close_all()
        if new_coordinator:
            self._loader.clear()

    def ended(self, reason: str, refused: bool) -> None:
        """Let `run` return, the first time this is called."""
        if self._end is None:
            self._end = (reason, refused)
            self._tasks.void_all()
            self._to_compute.put(None)


def _hello(config: NodeConfig, address: str, device: str) -> control.Hello:
    return control.Hello(
        protocol=control.PROTOCOL,
        name=config.name,
        instance=uuid.uuid4().hex,
        address=address,
        pid=os.getpid(),
        facts=facts_of(device, config.cores),
    )
