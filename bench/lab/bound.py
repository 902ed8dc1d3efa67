"""What computing alone allows: plain transformers on one node's part of the work, with no network.

The largest part of an equal split is what the slowest node has to do, and half the work takes more
than half the time: products of fewer rows run less efficiently. Plans can pass this bound a little,
since prism's last block computes only the rows the model head needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from prism.bench.plain import forward_of
from prism.models.inputs import main_input
from prism.models.load import LoadedModel
from prism.models.sites import sites_of
from prism.partition.spans import spans

Forward = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Bound:
    """The bound of plans that split work in so many parts.

    Attributes:
        parts: nodes of the plans.
        of_positions: whether they split positions, or else rows.
    """

    parts: int
    of_positions: bool

    @property
    def name(self) -> str:
        """How the bound is called in tables."""
        return f"bound: 1/{self.parts} of {'positions' if self.of_positions else 'rows'}"

    def forward(self, loaded: LoadedModel, batch: int, length: int) -> Forward:
        """Return a plain forward of the largest part of requests.

        Args:
            loaded: the model.
            batch: rows of a request.
            length: its positions.
        """
        if self.of_positions:
            return own_positions(loaded, spans(length, self.parts)[0].size)
        return own_rows(loaded, spans(batch, self.parts)[0].size)


def own_positions(loaded: LoadedModel, keep: int) -> Forward:
    """Return a plain forward in which every block sees only the first positions of each sample.

    The whole input is embedded, as every node of a sequence plan does.

    Args:
        loaded: the model.
        keep: how many positions.
    """
    forward = forward_of(loaded)
    if main_input(loaded.info) == "input_ids":
        return lambda inputs: forward({name: each[:, :keep] for name, each in inputs.items()})
    first = sites_of(loaded.info.family, loaded.model)[0].block

    def cut(block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (args[0][:, :keep], *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"][:, :keep]}

    def run(inputs: Mapping[str, Any]) -> Any:
        with first.register_forward_pre_hook(cut, with_kwargs=True):
            return forward(inputs)

    return run


def own_rows(loaded: LoadedModel, keep: int) -> Forward:
    """Return a plain forward of the first rows of a batch.

    Args:
        loaded: the model.
        keep: how many rows.
    """
    forward = forward_of(loaded)
    return lambda inputs: forward({name: each[:keep] for name, each in inputs.items()})
