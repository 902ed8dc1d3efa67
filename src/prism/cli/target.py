"""Where a command works: nodes started on this machine, or the devices of a cluster file.

The one place where the options that say so are checked and a cluster is opened from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prism.cli.arguments import check_at_least
from prism.errors import ConfigError
from prism.plan import default_node_name

if TYPE_CHECKING:
    from prism.api.cluster import Cluster

_NO_LINK = "none"
_ANY_METER = "auto"


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster that is not open yet, its options checked.

    Attributes:
        names: its nodes.
        needed: so many must have joined before it is of use.
        threads: of every local node; None = an equal part of the cores.
        link: the emulated link between local nodes; `none` has none.
        energy: the meter of every local node.
        config: the cluster file; None = local nodes.
    """

    names: tuple[str, ...]
    needed: int
    threads: int | None = None
    link: str = _NO_LINK
    energy: str = _ANY_METER
    config: Path | None = None

    def __str__(self) -> str:
        nodes = f"{len(self.names)} node{'' if len(self.names) == 1 else 's'}"
        return nodes if self.config is None else f"{nodes} of {self.config}"

    @property
    def emulated(self) -> bool:
        """Whether its link is an emulated one."""
        return self.link != _NO_LINK

    def open(self) -> AbstractContextManager[Cluster]:
        """Start the local nodes, or wait for the devices of the file.

        Raises:
            ConfigError: an option or the file cannot be used.
            ClusterError: a node did not start or join.
        """
        from prism.api.open import connect, local_cluster

        if self.config is not None:
            return connect(self.config, min_nodes=min(self.needed, len(self.names)))
        return local_cluster(
            len(self.names), threads=self.threads, link=self.link, energy=self.energy
        )


def read_target(
    config: Path | None,
    *,
    needed: int,
    nodes: int | None = None,
    threads: int | None = None,
    link: str | None = None,
    energy: str | None = None,
) -> Target:
    """Check the options that say where a command works; None was not given.

    Args:
        config: the cluster file, for real devices.
        needed: nodes without which it is of no use; so many local ones are started where their
            number was not given.
        nodes: local nodes.
        threads: of every local node.
        link: emulated link between local nodes, such as `100mbit,3ms`.
        energy: meter of every local node.

    Raises:
        ConfigError: a value is wrong, or would have no effect.
    """
    from prism.emulation.link import LinkShape

    check_at_least(1, {"--nodes": nodes, "--threads": threads})
    if config is not None:
        from prism.launch.cluster_file import read_config

        local = {"--nodes": nodes, "--threads": threads, "--link": link, "--energy": energy}
        _check_local_only(config, local)
        return Target(read_config(config).nodes, needed, config=config)
    names = tuple(default_node_name(index) for index in range(nodes or needed))
    shape = LinkShape.parse(link or _NO_LINK)
    return Target(names, needed, threads, str(shape), energy or _ANY_METER)


def _check_local_only(config: Path, options: Mapping[str, object]) -> None:
    """Refuse what was meant for local nodes and given together with a cluster of real ones."""
    for option, value in options.items():
        if value is not None:
            raise ConfigError(
                f"{option} {value} is for local nodes, and {config} names real ones; "
                f"leave {option} or --cluster out"
            )
