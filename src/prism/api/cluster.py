"""What a program holds in its hands: a cluster of nodes, to which it brings models."""

from __future__ import annotations

import atexit
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from transformers import PreTrainedModel

from prism.api.model import DistributedModel
from prism.control.messages import NodeFacts
from prism.coordinator.dispatch import Dispatcher
from prism.coordinator.link_timing import LinkTimer
from prism.coordinator.live import LiveCluster
from prism.coordinator.requests import Requests
from prism.coordinator.roster import Roster
from prism.coordinator.scheduler import Scheduler
from prism.errors import ConfigError, ModelError
from prism.launch.opening import Opened
from prism.models.load import describe
from prism.perfmap import CodingTimes
from prism.plan import PRECISIONS, Precision

_DTYPES = ("float32", "float16", "bfloat16")


class Cluster:
    """Nodes, alive or not, and the coordinator that talks to them.

    A context manager: leaving it stops the node processes that were started here. So does the end
    of the program.

    Args:
        opened: the nodes, and what gives everything back.
    """

    def __init__(self, opened: Opened) -> None:
        coordinator, names = opened.coordinator, opened.names
        scheduler = Scheduler()
        self._opened = opened
        self._coordinator = coordinator
        self._live = LiveCluster(
            coordinator=coordinator,
            roster=Roster(coordinator, names, opened.processes),
            scheduler=scheduler,
            requests=Requests(coordinator, Dispatcher(coordinator, names[0]), scheduler),
            timer=LinkTimer(coordinator),
        )
        self._numbers = itertools.count(1)
        self._models: list[DistributedModel] = []
        atexit.register(self.close)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes alive, the one on the coordinator's own device first."""
        return self._live.roster.alive

    def pid(self, node: str) -> int:
        """Return the process id of a node, on its own machine.

        Raises:
            ClusterError: no such node ever joined.
        """
        return self._coordinator.hello(node).pid

    def facts(self, node: str) -> NodeFacts:
        """Return what a node is and runs.

        Raises:
            ClusterError: no such node ever joined.
        """
        return self._coordinator.hello(node).facts

    def load(
        self,
        model: str | Path | PreTrainedModel,
        dtype: str = "float32",
        precisions: Sequence[Precision] | None = None,
    ) -> DistributedModel:
        """Bring a model to every node; nodes that come later load it by themselves.

        Args:
            model: a Hugging Face id, a directory, `digits`, `random:NAME_OR_DIR`, or a model
                object.
            dtype: dtype of the weights.
            precisions: that nodes keep it in, and no others; without float32 they drop the weights
                that these are made of. None = as cluster.yaml says, else float32, and others once
                a plan has them.

        Raises:
            ModelError: it cannot be found or loaded on some node.
            UnsupportedModel: it cannot be partitioned; says why.
            ConfigError: nodes hold different weights, or cannot be given a model object.
        """
        if dtype not in _DTYPES:
            raise ModelError(f"unknown dtype {dtype!r}; use {', '.join(_DTYPES)}")
        unknown = [each for each in precisions or () if each not in PRECISIONS]
        if unknown or (precisions is not None and not precisions):
            raise ModelError(
                f"precisions must be some of {', '.join(PRECISIONS)}, not {list(precisions or ())}"
            )
        number = next(self._numbers)
        source = (
            self._written(model, number) if isinstance(model, PreTrainedModel) else _text(model)
        )
        kept = self._opened.precisions if precisions is None else tuple(precisions)
        loaded = DistributedModel(number, describe(source), dtype, self._live, kept)
        self._models = [*(each for each in self._models if each.loaded), loaded]
        return loaded

    def set_link(self, link: str) -> None:
        """Change the emulated link of a local cluster while it runs.

        Raises:
            ConfigError: the text is no link, or the cluster was started without one.
        """
        if self._opened.link is None:
            raise ConfigError(
                f"link {link!r}: this cluster has no emulated link to change; start it with one"
            )
        self._opened.link.reshape(link)

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
        return self._live.timer.exchange_times(self.nodes, sizes, repeats, senders)

    def round_trip_s(self, node: str, nbytes: int) -> float:
        """Return how long `nbytes` to a node and a word back take.

        Raises:
            ClusterError: the node does not answer.
        """
        return self._live.timer.round_trip_s(node, nbytes)

    def coding_times(self) -> tuple[CodingTimes, ...]:
        """Return what compressing images without loss costs each node alive, one after the other.

        Raises:
            ClusterError: a node does not answer.
        """
        return tuple(self._live.timer.coding_times(name) for name in self.nodes)

    def close(self) -> None:
        """Stop the node processes started here and release everything. Safe to call twice."""
        atexit.unregister(self.close)
        for model in self._models:
            model.close()
        self._opened.release.close()

    def _written(self, model: PreTrainedModel, number: int) -> str:
        """Write a model object where all nodes can read it.

        Raises:
            ConfigError: a node is on another machine.
        """
        places = {name: self._coordinator.hello(name).address for name in self.nodes}
        others = [name for name, place in places.items() if place != next(iter(places.values()))]
        if others:
            raise ConfigError(
                f"a model object cannot be sent to {', '.join(others)}; save it to a directory, "
                f"copy that to every node and give its path"
            )
        directory = self._opened.scratch / f"model{number}"
        model.save_pretrained(directory)
        return str(directory)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _text(model: str | Path) -> str:
    """Return what every node is told; a path means the same whatever directory a node runs in."""
    return model if isinstance(model, str) else str(model.absolute())
