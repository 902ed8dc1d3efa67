"""Ways to a cluster: node processes on this machine, or real devices from `cluster.yaml`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from prism.cluster.config import read_config
from prism.cluster.head import Head
from prism.cluster.keys import Secret, generate, read, save
from prism.cluster.local import NodeProcess, cores_for
from prism.cluster.node import EmulatedLink
from prism.cluster.session import Cluster
from prism.core import default_node_name
from prism.errors import ClusterError, ConfigError
from prism.transport.link import LinkShape

_START_TIMEOUT_S = 120.0
_LOOPBACK = "127.0.0.1"


def local_cluster(
    nodes: int = 2, *, threads: int | None = None, link: str = "none", device: str = "cpu"
) -> Cluster:
    """Start node processes on this machine, with a fresh secret.

    Args:
        nodes: how many; named node0, node1, ...
        threads: compute threads per node; given, node i is also pinned to its own cores where
            there are enough, so that two nodes are two devices. None: an equal part of the cores.
        link: an emulated link between them, such as `100mbit,3ms`; `none` leaves loopback alone.
        device: torch device of every node.

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
    cores = [()] * nodes if threads is None else cores_for(nodes, threads)
    threads = threads or max(1, len(os.sched_getaffinity(0)) // nodes)
    scratch = TemporaryDirectory(prefix="prism-")
    try:
        arguments = _local_arguments(Path(scratch.name), link, names, threads, device)
        head = Head(_LOOPBACK, 0, _local_secret(Path(scratch.name)))
    except BaseException:
        scratch.cleanup()
        raise
    processes: list[NodeProcess] = []
    try:
        for name, pins in zip(names, cores, strict=True):
            own = ["--cores", ",".join(map(str, pins))] if pins else []
            log = Path(scratch.name) / f"{name}.log"
            endpoint = f"tcp://{_LOOPBACK}:{head.port}"
            processes.append(
                NodeProcess(name, [*arguments, "--head", endpoint, *own], log, threads)
            )
        emulated = EmulatedLink.open(link, _medium(Path(scratch.name)), names)
        _await(head, names, processes, _START_TIMEOUT_S)
        return Cluster(head, names, processes, scratch, emulated)
    except BaseException:
        head.close()
        for process in processes:
            process.stop()
        scratch.cleanup()
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
    secret = read(config.secret)
    head = Head(config.host, config.port, secret)
    scratch = TemporaryDirectory(prefix="prism-")
    home = config.nodes[0]
    arguments = [
        *("--head", f"tcp://{config.host}:{config.port}"),
        *("--secret", str(config.secret.resolve())),
        *("--device", config.device),
    ]
    processes = [NodeProcess(home, arguments, Path(scratch.name) / f"{home}.log")]
    try:
        _await(head, config.nodes, processes, timeout_s)
        return Cluster(head, config.nodes, processes, scratch)
    except BaseException:
        head.close()
        for process in processes:
            process.stop()
        scratch.cleanup()
        raise


def _local_secret(scratch: Path) -> Secret:
    secret = generate()
    save(secret, scratch / "cluster.key")
    return secret


def _medium(scratch: Path) -> Path:
    return scratch / "medium"


def _local_arguments(
    scratch: Path, link: str, names: Sequence[str], threads: int, device: str
) -> list[str]:
    return [
        *("--secret", str(scratch / "cluster.key")),
        *("--threads", str(threads)),
        *("--device", device),
        *("--link", link),
        *("--medium", str(_medium(scratch))),
        *("--places", ",".join(names)),
    ]


def _await(
    head: Head, names: Sequence[str], processes: Sequence[NodeProcess], timeout_s: float
) -> None:
    """Wait until all nodes have joined."""
    deadline_s = time.monotonic() + timeout_s
    while missing := head.wait_for(names, 0.2):
        for process in processes:
            if process.name in missing and not process.running:
                raise ClusterError(f"node {process.name} did not start: {process.last_words()}")
        if time.monotonic() > deadline_s:
            raise ClusterError(
                f"{', '.join(missing)} did not join within {timeout_s:g} s; is prism node running "
                f"there, with this head's address and the same secret?"
            )
