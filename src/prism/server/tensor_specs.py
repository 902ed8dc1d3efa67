"""Which tensors a model takes and gives, as the Open Inference Protocol describes them.

What a model takes is read from its configuration; what it gives is seen from a first small request,
so that the description is true of every class of transformers.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from prism.api.model import DistributedModel
from prism.models.families import image_size
from prism.models.inputs import main_input
from prism.models.load import ModelInfo
from prism.server.binary_tensors import datatype_of

_ANY = -1
_FLOATS = ("FP32", "FP16")
_INTEGERS = ("INT64", "INT32")
# Two lengths of a text tell which sizes follow it.
_LENGTHS = (12, 8)
_TOKEN = 5


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: of the tensor.
        datatypes: that it may have, in the protocol's words; the first is the usual one.
        shape: sizes; -1 where any will do.
    """

    name: str
    datatypes: tuple[str, ...]
    shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what the protocol's metadata say of it."""
        return {"name": self.name, "datatype": self.datatypes[0], "shape": list(self.shape)}


def input_specs(info: ModelInfo) -> tuple[TensorSpec, ...]:
    """Return the tensors that a model takes, the one that it needs first."""
    name = main_input(info)
    if name == "pixel_values":
        types = (*_FLOATS, "UINT8") if info.normalisation else _FLOATS
        shape = (_ANY, int(info.config.num_channels), *image_size(info.config))
        return (TensorSpec(name, types, shape),)
    if name == "input_features":
        frames = 2 * int(info.config.max_source_positions)
        return (TensorSpec(name, _FLOATS, (_ANY, int(info.config.num_mel_bins), frames)),)
    architecture: Any = info.architecture
    taken = inspect.signature(architecture.forward).parameters
    others = [each for each in ("attention_mask", "token_type_ids") if each in taken]
    return tuple(TensorSpec(each, _INTEGERS, (_ANY, _ANY)) for each in (name, *others))


def output_specs(model: DistributedModel) -> tuple[TensorSpec, ...]:
    """Return the tensors that a model gives when asked for all; runs it once or twice.

    Raises:
        ClusterError: no node could answer.
    """
    first = input_specs(model.info)[0]
    lengths = sorted({min(each, model.info.shape.max_length) for each in _LENGTHS})
    shapes = [[1 if size == _ANY else size for size in first.shape]]
    if set(first.shape) == {_ANY}:
        shapes = [[1, length] for length in lengths]
    outputs = [_run(model, first, shape) for shape in shapes]
    return tuple(
        TensorSpec(name, (datatype_of(value.dtype),), _common([each[name] for each in outputs]))
        for name, value in outputs[0].items()
    )


def _run(model: DistributedModel, spec: TensorSpec, shape: list[int]) -> dict[str, torch.Tensor]:
    """Run the model on any input of a shape."""
    if spec.datatypes == _INTEGERS:
        value = torch.full(shape, min(_TOKEN, int(model.info.config.vocab_size) - 1))
    else:
        value = torch.zeros(shape)
    inputs: dict[str, Any] = {spec.name: value}
    output = model(plan="local", **inputs)
    return {name: each for name, each in output.items() if isinstance(each, torch.Tensor)}


def _common(tensors: list[torch.Tensor]) -> tuple[int, ...]:
    """Return the sizes that outputs of different inputs share; the first is that of the batch."""
    sizes = zip(*(tensor.shape for tensor in tensors), strict=True)
    _, *others = (each[0] if len(set(each)) == 1 else _ANY for each in sizes)
    return (_ANY, *others)
