"""From a description to nodes that have joined: processes of this machine, or real devices."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from prism.control.keys import generate, read, save
from prism.coordinator.coordinator import Coordinator
from prism.emulation.place import EmulatedLink
from prism.errors import ClusterError, ConfigError
from prism.launch.cluster_file import ClusterConfig
from prism.launch.processes import NodeProcess, cores_for, end_all
from prism.plan import Precision, default_node_name
from prism.transport.factory import FACTORIES

_START_TIMEOUT_S = 120.0
_LOOPBACK = "127.0.0.1"
# A cluster that could open waits so long for those that are still on their way.
_LATE_S = 8.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A cluster whose nodes have joined.

    Attributes:
        coordinator: talks to them.
        names: of the nodes expected, the one on the coordinator's own device first.
        processes: node processes started here.
        scratch: a directory that lives as long as the cluster.
        release: gives everything back when it is closed.
        link: the emulated link of a local cluster.
        precisions: that nodes keep models in; None = float32, and others once a plan has them.
    """

    coordinator: Coordinator
    names: tuple[str, ...]
    processes: Sequence[NodeProcess]
    scratch: Path
    release: ExitStack
    link: EmulatedLink | None = None
    precisions: tuple[Precision, ...] | None = None


def open_local(
    nodes: int, threads: int | None, link: str, device: str, energy: str, backend: str
) -> Opened:
    """Start node processes on this machine, with a fresh secret, and wait for all of them.

    Args:
        nodes: how many.
        threads: compute threads per node, each pinned to its own cores where there are enough;
            None: an equal part of the cores.
        link: the emulated link between them.
        device: torch device of every node.
        energy: every node's meter.
        backend: every node's.

    Raises:
        ClusterError: a node did not start; says why.
    """
    names = tuple(default_node_name(index) for index in range(nodes))
    cores = [()] * nodes if threads is None else cores_for(nodes, threads)
    threads = threads or max(1, len(os.sched_getaffinity(0)) // nodes)
    factory = FACTORIES["gloo"]()

    def start(release: ExitStack, scratch: Path) -> Opened:
        secret, medium = scratch / "cluster.key", scratch / "medium"
        save(generate(), secret)
        emulated = EmulatedLink.open(link, medium, names)
        arguments = ["--secret", str(secret), "--threads", str(threads)]
        arguments += ["--device", device, "--energy", energy, "--backend", backend]
        if emulated is None:
            coordinator = Coordinator(_LOOPBACK, 0, read(secret), factory)
        else:
            release.callback(emulated.close)
            delivery = emulated.delivery(names[0])
            coordinator = Coordinator(_LOOPBACK, 0, read(secret), factory, delivery)
            arguments += ["--link", link, "--medium", str(medium), "--places", ",".join(names)]
        arguments += ["--coordinator", f"tcp://{_LOOPBACK}:{coordinator.port}"]
        processes = _released_by(release, coordinator)
        for name, pins in zip(names, cores, strict=True):
            own = ["--cores", ",".join(map(str, pins))] if pins else []
            processes.append(NodeProcess(name, [*arguments, *own], scratch, threads))
        _wait(coordinator, names, processes, len(names), _START_TIMEOUT_S)
        return Opened(coordinator, names, processes, scratch, release, emulated)

    return _opened(start)


def open_devices(config: ClusterConfig, timeout_s: float, min_nodes: int) -> Opened:
    """Start the node of this device and wait for those of the others.

    Args:
        config: names the nodes.
        timeout_s: longest wait for `min_nodes` of them.
        min_nodes: so many are enough; the others are taken in when they come.

    Raises:
        ConfigError: the secret or the address cannot be used, or more nodes are wanted than named.
        ClusterError: too few nodes joined in time.
    """
    if not 1 <= min_nodes <= len(config.nodes):
        raise ConfigError(
            f"min_nodes must lie in 1..{len(config.nodes)}, the nodes that are named, "
            f"not {min_nodes}"
        )

    def start(release: ExitStack, scratch: Path) -> Opened:
        factory = FACTORIES[config.transport]()
        coordinator = Coordinator(config.host, config.port, read(config.secret), factory)
        host = f"[{config.host}]" if ":" in config.host else config.host
        arguments = [
            *("--coordinator", f"tcp://{host}:{config.port}"),
            *("--secret", str(config.secret.resolve())),
            *("--device", config.device),
            *("--backend", config.backend),
        ]
        processes = _released_by(release, coordinator)
        processes.append(NodeProcess(config.nodes[0], arguments, scratch))
        _wait(coordinator, config.nodes, processes, min_nodes, timeout_s)
        return Opened(
            coordinator,
            config.nodes,
            processes,
            scratch,
            release,
            precisions=config.precisions,
        )

    return _opened(start)


def _opened(start: Callable[[ExitStack, Path], Opened]) -> Opened:
    """Start a cluster in a fresh directory; give everything back if it does not come to be."""
    release = ExitStack()
    try:
        return start(release, Path(release.enter_context(TemporaryDirectory(prefix="prism-"))))
    except BaseException:
        release.close()
        raise


def _released_by(release: ExitStack, coordinator: Coordinator) -> list[NodeProcess]:
    """Return the list of processes that `release` will end, after the coordinator told them to."""
    processes: list[NodeProcess] = []
    release.callback(end_all, processes)
    release.callback(coordinator.close)
    return processes


def _wait(
    coordinator: Coordinator,
    names: Sequence[str],
    processes: Sequence[NodeProcess],
    enough: int,
    timeout_s: float,
) -> None:
    """Wait until all nodes have joined; or enough have, and the others do not seem to come."""
    begun_s, enough_since_s = time.monotonic(), None
    while missing := coordinator.wait_for(names, 0.2):
        for process in processes:
            if process.name in missing and not process.running:
                raise ClusterError(f"node {process.name} did not start: {process.last_words()}")
        now_s = time.monotonic()
        home_is_there = names[0] not in missing
        if home_is_there and len(names) - len(missing) >= enough:
            enough_since_s = enough_since_s or now_s
            if now_s - enough_since_s >= _LATE_S:
                return
        elif now_s - begun_s > timeout_s:
            raise ClusterError(
                f"{', '.join(missing)} did not join within {timeout_s:g} s; is prism node running "
                f"there, with this coordinator's address and the same secret?"
            )
