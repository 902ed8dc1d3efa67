"""What a program holds in its hands: a cluster of nodes, to which it brings models."""

from __future__ import annotations

import atexit
import itertools
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from transformers import PreTrainedModel

from prism.api.model import DistributedModel
from prism.control import messages as control
from prism.coordinator.coordinator import Coordinator
from prism.coordinator.dispatch import Dispatcher
from prism.coordinator.link_timing import LinkTimer
from prism.coordinator.roster import Roster
from prism.emulation.place import EmulatedLink
from prism.errors import ConfigError, ModelError
from prism.launch.processes import NodeProcess
from prism.models.load import describe

__all__ = ["Cluster", "DistributedModel"]

_DTYPES = ("float32", "float16", "bfloat16")


class Cluster:
    """Nodes, alive or not, and the coordinator that talks to them.

    A context manager: leaving it stops the node processes that were started here. So does the end
    of the program.

    Args:
        coordinator: talks to the nodes.
        names: the nodes, the one on the coordinator's own device first.
        processes: node processes started here.
        scratch: a directory that lives as long as the cluster.
        release: gives everything back when it is closed.
        link: the emulated link of a local cluster.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        names: Sequence[str],
        processes: Sequence[NodeProcess],
        scratch: Path,
        release: ExitStack,
        link: EmulatedLink | None = None,
    ) -> None:
        self._coordinator = coordinator
        self._roster = Roster(coordinator, names, processes)
        self._scratch = scratch
        self._release = release
        self._numbers = itertools.count(1)
        self._link = link
        self._dispatcher = Dispatcher(coordinator, names[0], link)
        self._timer = LinkTimer(coordinator, names[0], link)
        self._models: list[DistributedModel] = []
        self._turn = threading.Lock()
        atexit.register(self.close)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes alive, the one on the coordinator's own device first."""
        return self._roster.alive

    def pid(self, node: str) -> int:
        """Return the process id of a node, on its own machine.

        Raises:
            ClusterError: no such node ever joined.
        """
        return self._coordinator.hello(node).pid

    def facts(self, node: str) -> control.NodeFacts:
        """Return what a node is and runs.

        Raises:
            ClusterError: no such node ever joined.
        """
        return self._coordinator.hello(node).facts

    def load(self, model: str | Path | PreTrainedModel, dtype: str = "float32") -> DistributedModel:
        """Bring a model to every node.

        Args:
            model: a Hugging Face id, a directory, `random:NAME_OR_DIR`, or a model object.
            dtype: dtype of the weights.

        Raises:
            ModelError: it cannot be found or loaded on some node.
            UnsupportedModel: it cannot be partitioned; says why.
            ConfigError: nodes hold different weights, or cannot be given a model object.
        """
        if dtype not in _DTYPES:
            raise ModelError(f"unknown dtype {dtype!r}; use {', '.join(_DTYPES)}")
        number = next(self._numbers)
        if isinstance(model, PreTrainedModel):
            self._check_one_machine()
            source = str(self._scratch / f"model{number}")
            model.save_pretrained(source)
        else:
            source = str(model)
        loaded = DistributedModel(
            number,
            describe(source),
            dtype,
            coordinator=self._coordinator,
            roster=self._roster,
            dispatcher=self._dispatcher,
            timer=self._timer,
            turn=self._turn,
        )
        self._models.append(loaded)
        return loaded

    def set_link(self, link: str) -> None:
        """Change the emulated link of a local cluster while it runs.

        Raises:
            ConfigError: the text is no link, or the cluster was started without one.
        """
        if self._link is None:
            raise ConfigError(
                f"link {link!r}: this cluster has no emulated link to change; start it with one"
            )
        self._link.reshape(link)

    def exchange_times(
        self, sizes: Sequence[int], repeats: int, senders: Sequence[str]
    ) -> tuple[float, ...]:
        """Return the median time of an exchange among all nodes, by bytes of a frame.

        Args:
            sizes: payload bytes of one frame.
            repeats: exchanges per size.
            senders: nodes that send to all others; the rest only receive.

        Raises:
            ClusterError: a node failed.
        """
        with self._turn:
            return self._timer.exchange_times(self.nodes, sizes, repeats, senders)

    def round_trip_s(self, node: str, nbytes: int) -> float:
        """Return how long `nbytes` to a node and a word back take.

        Raises:
            ClusterError: the node does not answer.
        """
        with self._turn:
            return self._timer.round_trip_s(node, nbytes)

    def _check_one_machine(self) -> None:
        """Check that a file written here can be read by all nodes."""
        places = {name: self._coordinator.hello(name).address for name in self.nodes}
        others = [name for name, place in places.items() if place != next(iter(places.values()))]
        if others:
            raise ConfigError(
                f"a model object cannot be sent to {', '.join(others)}; save it to a directory, "
                f"copy that to every node and give its path"
            )

    def close(self) -> None:
        """Stop the node processes started here and release everything. Safe to call twice."""
        atexit.unregister(self.close)
        for model in self._models:
            model.close()
        self._release.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
