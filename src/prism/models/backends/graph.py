"""A model as one graph, from tensors to tensors, for runtimes that do not run torch's modules.

A graph has a fixed set of inputs and no options. `GraphCall` fills in what a caller may leave out
(a mask of ones, token types of zero) and gives everything else that the graph does not know, such
as `position_ids` or `output_hidden_states`, to the model itself.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from prism.errors import UnsupportedPrecision
from prism.models.backends.base import name_of
from prism.models.families import image_size
from prism.models.inputs import main_input, records_blocks
from prism.models.load import LoadedModel

Arrays = Mapping[str, np.ndarray[Any, Any]]
RunArrays = Callable[[Arrays], Sequence[np.ndarray[Any, Any]]]
_EXAMPLE_ROWS = 2
_EXAMPLE_TOKENS = 11


def graph_obstacle(loaded: LoadedModel, backend: str) -> str:
    """Return why a model cannot be one graph on this device; empty if it can."""
    device = next(loaded.model.parameters()).device
    if device.type != "cpu":
        return f"{backend} computes on the CPU, and the model is on {device}; use eager or compile"
    if records_blocks(loaded.info):
        return (
            f"{name_of(loaded)} gives the outputs of its blocks, which the graphs of {backend} "
            f"do not have; use eager"
        )
    return ""


@dataclass(frozen=True, slots=True)
class Graph:
    """A model that can be traced or exported.

    Attributes:
        module: takes `example` by position, returns a tuple of tensors.
        inputs: names of what it takes, the model's main input first.
        outputs: names of what it returns.
        output_class: the ModelOutput they belong to.
        example: inputs, with padding where there is a mask; batch and length are to be dynamic.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output_class: type[Any]
    example: tuple[torch.Tensor, ...]

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Return, for every input, the dimensions whose size may differ from call to call."""
        text = self.example[0].dim() == 2
        return {name: {0: "batch", 1: "length"} if text else {0: "batch"} for name in self.inputs}


class _Flat(nn.Module):
    """Calls a model with tensors in a fixed order and returns only its tensors."""

    def __init__(self, model: nn.Module, inputs: Sequence[str], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self._inputs = tuple(inputs)
        self._options = dict(options)
        # Exporters leave a module, and all in it, in the mode in which they find it.
        self.train(False)

    def named(self, tensors: Sequence[torch.Tensor]) -> Any:
        """Return the model's own output."""
        return self.model(**dict(zip(self._inputs, tensors, strict=True)), **self._options)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the tensors of the model's output, in its order."""
        return tuple(self.named(tensors).values())


def graph_of(loaded: LoadedModel) -> Graph:
    """Return a model as a graph in float32, whatever the precision of this copy of it.

    Raises:
        UnsupportedPrecision: its output holds more than tensors.
    """
    known = inspect.signature(loaded.model.forward).parameters
    main = main_input(loaded.info)
    inputs = (main, *_optional(loaded, known))
    # A cache would be built and thrown away.
    options = {"use_cache": False} if "use_cache" in known else {}
    flat = _Flat((loaded.origin or loaded).model, inputs, options)
    example = tuple(_example(loaded, name) for name in inputs)
    with tracing():
        output = flat.named(example)
    others = [name for name, value in output.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UnsupportedPrecision(
            f"{name_of(loaded)} gives {', '.join(others)} besides tensors, which no graph does; "
            f"use eager"
        )
    return Graph(flat, inputs, tuple(output), type(output), example)


class GraphCall:
    """Called like the model it was made of.

    Args:
        graph: says what goes in and comes out.
        run: from the graph's inputs to its outputs, in its order.
        model: runs what the graph does not cover.
        takes_mask: whether the graph is right for an attention mask `(B, N)`.
    """

    def __init__(
        self,
        graph: Graph,
        run: RunArrays,
        model: nn.Module,
        takes_mask: Callable[[torch.Tensor], bool] = lambda mask: True,
    ) -> None:
        self._inputs = graph.inputs
        self._outputs = graph.outputs
        self._output_class = graph.output_class
        self._run = run
        self._model = model
        self._takes_mask = takes_mask

    def __call__(self, **inputs: Any) -> Any:
        """Return the model's output; inputs share their memory with the graph's where they can."""
        if not self._covers(inputs):
            return self._model(**inputs)
        arrays = {name: _array(self._filled(name, inputs)) for name in self._inputs}
        tensors = [torch.from_numpy(array) for array in self._run(arrays)]
        return self._output_class(**dict(zip(self._outputs, tensors, strict=True)))

    def _covers(self, inputs: Mapping[str, Any]) -> bool:
        """Return whether the graph computes what these inputs ask of the model."""
        mask = inputs.get("attention_mask")
        if isinstance(mask, torch.Tensor) and not self._takes_mask(mask):
            return False
        return all(
            value is None
            or (isinstance(value, torch.Tensor) and name in self._inputs)
            # Options that are off: no cache, no recorded blocks, all logits.
            or (not isinstance(value, torch.Tensor) and not value and name != "return_dict")
            for name, value in inputs.items()
        )

    def _filled(self, name: str, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return an input, or what the model takes where the caller leaves it out."""
        value: torch.Tensor | None = inputs.get(name)
        if value is not None:
            return value
        main: torch.Tensor = inputs[self._inputs[0]]
        return torch.ones_like(main) if name == "attention_mask" else torch.zeros_like(main)


@contextmanager
def tracing() -> Iterator[None]:
    """Trace, export and convert in here: without gradients, and without what tracers warn of.

    They warn of every size that becomes a constant, and of their own age; whether the graph is
    right is found out by comparing outputs.
    """
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message="Exporting aten::index operator")
        yield


def _optional(loaded: LoadedModel, known: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a text may come with besides its ids."""
    if main_input(loaded.info) != "input_ids":
        return ()
    # GPT-2 has token types without a type that means none: there the model itself takes them.
    types = getattr(loaded.info.config, "type_vocab_size", None)
    names = ("attention_mask", "token_type_ids") if types else ("attention_mask",)
    return tuple(name for name in names if name in known)


def _example(loaded: LoadedModel, name: str) -> torch.Tensor:
    """Return one input, unlike what is fixed anywhere, so that sizes are told apart."""
    config, info = loaded.info.config, loaded.info
    if name == "pixel_values":
        return torch.rand(_EXAMPLE_ROWS, config.num_channels, *image_size(config))
    if name == "input_features":
        return torch.rand(_EXAMPLE_ROWS, config.num_mel_bins, 2 * config.max_source_positions)
    length = min(_EXAMPLE_TOKENS, info.shape.max_length)
    if name == "input_ids":
        ids: torch.Tensor = torch.arange(_EXAMPLE_ROWS * length) % config.vocab_size
        return ids.view(_EXAMPLE_ROWS, length)
    filled: Callable[..., torch.Tensor]
    filled = torch.ones if name == "attention_mask" else torch.zeros
    value = filled(_EXAMPLE_ROWS, length, dtype=torch.long)
    if name == "attention_mask" and length > 1:
        value[-1, -1] = 0  # Models leave out a mask that hides nothing.
    return value


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor as numpy sees it; a graph takes float32 and int64 only."""
    wide = torch.float32 if tensor.is_floating_point() else torch.int64
    array: np.ndarray[Any, Any] = tensor.to(wide).contiguous().numpy()
    return array
