"""Ways to a cluster: node processes on this machine, or real devices from `cluster.yaml`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from prism.api.cluster import Cluster
from prism.control.keys import generate, read, save
from prism.coordinator.coordinator import Coordinator
from prism.emulation.link import LinkShape
from prism.emulation.place import EmulatedLink
from prism.errors import ClusterError, ConfigError
from prism.launch.cluster_file import ClusterConfig, read_config
from prism.launch.processes import NodeProcess, cores_for, end_all
from prism.plan import default_node_name

_START_TIMEOUT_S = 120.0
_LOOPBACK = "127.0.0.1"


def local_cluster(
    nodes: int = 2,
    *,
    threads: int | None = None,
    link: str = "none",
    device: str = "cpu",
    energy: str = "auto",
) -> Cluster:
    """Start node processes on this machine, with a fresh secret.

    Args:
        nodes: how many; named node0, node1, ...
        threads: compute threads per node; given, node i is also pinned to its own cores where
            there are enough, so that two nodes are two devices. None: an equal part of the cores.
        link: an emulated link between them, such as `100mbit,3ms`; `none` leaves loopback alone.
        device: torch device of every node.
        energy: every node's meter: auto, none, rapl, nvml, model:idle=2.5,busy=7, replay:FILE, ...

    Raises:
        ConfigError: an argument has a wrong value.
        ClusterError: a node did not start; says why.
    """
    if not 1 <= nodes <= 64:
        raise ConfigError(f"a local cluster has 1 to 64 nodes, not {nodes}")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, not {threads}")
    LinkShape.parse(link)
    names = [default_node_name(index) for index in range(nodes)]
    release = ExitStack()
    try:
        return _open_local(names, threads, link, ["--device", device, "--energy", energy], release)
    except BaseException:
        release.close()
        raise


def connect(path: str | Path, timeout_s: float = 60.0) -> Cluster:
    """Open the cluster described by a file; starts the node of this device.

    Args:
        path: a `cluster.yaml`.
        timeout_s: longest wait for the other nodes to join.

    Raises:
        ConfigError: the file or the secret cannot be used.
        ClusterError: a node did not join in time.
    """
    config = read_config(Path(path))
    release = ExitStack()
    try:
        return _open_config(config, timeout_s, release)
    except BaseException:
        release.close()
        raise


def _open_local(
    names: Sequence[str],
    threads: int | None,
    link: str,
    options: Sequence[str],
    release: ExitStack,
) -> Cluster:
    cores = [()] * len(names) if threads is None else cores_for(len(names), threads)
    threads = threads or max(1, len(os.sched_getaffinity(0)) // len(names))
    scratch = Path(release.enter_context(TemporaryDirectory(prefix="prism-")))
    secret, medium = scratch / "cluster.key", scratch / "medium"
    save(generate(), secret)
    emulated = EmulatedLink.open(link, medium, names)
    if emulated is not None:
        release.callback(emulated.medium.close)
    coordinator = Coordinator(_LOOPBACK, 0, read(secret))
    arguments = [
        *("--coordinator", f"tcp://{_LOOPBACK}:{coordinator.port}"),
        *("--secret", str(secret)),
        *("--threads", str(threads)),
        *options,
        *("--link", link),
        *("--medium", str(medium)),
        *("--places", ",".join(names)),
    ]
    processes = _released_by(release, coordinator)
    for name, pins in zip(names, cores, strict=True):
        own = ["--cores", ",".join(map(str, pins))] if pins else []
        processes.append(NodeProcess(name, [*arguments, *own], scratch, threads))
    _await(coordinator, names, processes, _START_TIMEOUT_S)
    return Cluster(coordinator, names, processes, scratch, release, emulated)


def _open_config(config: ClusterConfig, timeout_s: float, release: ExitStack) -> Cluster:
    secret = read(config.secret)
    scratch = Path(release.enter_context(TemporaryDirectory(prefix="prism-")))
    coordinator = Coordinator(config.host, config.port, secret)
    arguments = [
        *("--coordinator", f"tcp://{_bracketed(config.host)}:{config.port}"),
        *("--secret", str(config.secret.resolve())),
        *("--device", config.device),
    ]
    processes = _released_by(release, coordinator)
    processes.append(NodeProcess(config.nodes[0], arguments, scratch))
    _await(coordinator, config.nodes, processes, timeout_s)
    return Cluster(coordinator, config.nodes, processes, scratch, release)


def _released_by(release: ExitStack, coordinator: Coordinator) -> list[NodeProcess]:
    """Return the list of processes that `release` will end, after the coordinator told them to."""
    processes: list[NodeProcess] = []
    release.callback(end_all, processes)
    release.callback(coordinator.close)
    return processes


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _await(
    coordinator: Coordinator,
    names: Sequence[str],
    processes: Sequence[NodeProcess],
    timeout_s: float,
) -> None:
    """Wait until all nodes have joined."""
    deadline_s = time.monotonic() + timeout_s
    while missing := coordinator.wait_for(names, 0.2):
        for process in processes:
            if process.name in missing and not process.running:
                raise ClusterError(f"node {process.name} did not start: {process.last_words()}")
        if time.monotonic() > deadline_s:
            raise ClusterError(
                f"{', '.join(missing)} did not join within {timeout_s:g} s; is prism node running "
                f"there, with this coordinator's address and the same secret?"
            )
