"""Ways to a cluster: node processes on this machine, or real devices from `cluster.yaml`."""

from __future__ import annotations

from pathlib import Path

from prism.api.cluster import Cluster
from prism.emulation.link import LinkShape
from prism.errors import ConfigError
from prism.launch.cluster_file import read_config
from prism.launch.opening import open_devices, open_local
from prism.models.backends import check_backend

_MOST_NODES = 64


def local_cluster(
    nodes: int = 2,
    *,
    threads: int | None = None,
    link: str = "none",
    device: str = "cpu",
    energy: str = "auto",
    backend: str = "eager",
) -> Cluster:
    """Start node processes on this machine, with a fresh secret.

    Args:
        nodes: how many; named node0, node1, ...
        threads: compute threads per node; given, node i is also pinned to its own cores where
            there are enough, so that two nodes are two devices. None: an equal part of the cores.
        link: an emulated link between them, such as `100mbit,3ms`; `none` leaves loopback alone.
        device: torch device of every node.
        energy: every node's meter: auto, none, rapl, nvml, model:idle=2.5,busy=7, replay:FILE, ...
        backend: what runs models on every node; see `prism.models.backends`.

    Raises:
        ConfigError: an argument has a wrong value.
        ClusterError: a node did not start; says why.
    """
    if not 1 <= nodes <= _MOST_NODES:
        raise ConfigError(f"a local cluster has 1 to {_MOST_NODES} nodes, not {nodes}")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, not {threads}")
    LinkShape.parse(link)
    check_backend(backend)
    return Cluster(open_local(nodes, threads, link, device, energy, backend))


def connect(path: str | Path, timeout_s: float = 60.0, min_nodes: int | None = None) -> Cluster:
    """Open the cluster described by a file; starts the node of this device.

    It opens with the nodes that are there; those that come later are taken in.

    Args:
        path: a `cluster.yaml`.
        timeout_s: longest wait for enough nodes to join.
        min_nodes: how many are enough, the one of this device among them; None = as the file says.

    Raises:
        ConfigError: the file or the secret cannot be used.
        ClusterError: too few nodes joined in time.
    """
    config = read_config(Path(path))
    check_backend(config.backend)
    return Cluster(open_devices(config, timeout_s, min_nodes or config.min_nodes))
