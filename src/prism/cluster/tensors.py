"""Inputs and outputs as JSON plus raw frames: no pickle, in the smallest form that is exact.

Integers travel in the narrowest dtype that holds their values and arrive in their own; everything
else travels as it is (uint8 pixels stay uint8).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.utils import ModelOutput

from prism.errors import RequestError

_NARROW = (torch.uint8, torch.int16, torch.int32)
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
    )
}  # fmt: skip


def pack(tree: Any) -> tuple[Any, list[memoryview]]:
    """Return a JSON description of nested tensors and plain values, and the tensors' bytes.

    Raises:
        RequestError: something in it is neither.
    """
    frames: list[memoryview] = []
    return _pack(tree, frames), frames


def unpack(description: Any, frames: Sequence[Any]) -> Any:
    """Return what `pack` was given, tensors on the CPU."""
    kind, *rest = description
    if kind == "value":
        return rest[0]
    if kind == "tensor":
        return _unpack_tensor(frames[rest[0]], *rest[1:])
    if kind == "list":
        return [unpack(item, frames) for item in rest[0]]
    if kind == "tuple":
        return tuple(unpack(item, frames) for item in rest[0])
    values = {key: unpack(item, frames) for key, item in rest[0].items()}
    return values if kind == "dict" else _output_class(*rest[1:])(**values)


def _pack(tree: Any, frames: list[memoryview]) -> list[Any]:
    if isinstance(tree, torch.Tensor):
        narrow = _narrowed(tree.detach())
        frames.append(_bytes_of(narrow))
        return ["tensor", len(frames) - 1, _name(tree.dtype), _name(narrow.dtype), list(tree.shape)]
    if isinstance(tree, ModelOutput):
        values = {key: _pack(value, frames) for key, value in tree.items()}
        return ["output", values, type(tree).__module__, type(tree).__qualname__]
    if isinstance(tree, dict):
        return ["dict", {str(key): _pack(value, frames) for key, value in tree.items()}]
    if isinstance(tree, (list, tuple)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return [kind, [_pack(value, frames) for value in tree]]
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return ["value", tree]
    raise RequestError(f"a {type(tree).__name__} cannot be sent to a node; use tensors and numbers")


def _narrowed(tensor: torch.Tensor) -> torch.Tensor:
    integer = not tensor.is_floating_point() and tensor.dtype not in (torch.bool, torch.uint8)
    if not integer or not tensor.numel():
        return tensor
    low, high = (int(bound) for bound in torch.aminmax(tensor))
    for dtype in _NARROW:
        limits = torch.iinfo(dtype)
        if dtype.itemsize < tensor.dtype.itemsize and limits.min <= low and high <= limits.max:
            return tensor.to(dtype)
    return tensor


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def _unpack_tensor(frame: Any, dtype: str, sent_as: str, shape: list[int]) -> torch.Tensor:
    if dtype not in _DTYPES or sent_as not in _DTYPES:
        raise RequestError(f"a tensor of dtype {dtype} sent as {sent_as} is not understood")
    raw = np.frombuffer(frame, dtype=np.uint8).copy()
    if raw.size != math.prod(shape) * _DTYPES[sent_as].itemsize:
        raise RequestError(f"{raw.size} bytes are no {sent_as} tensor of shape {tuple(shape)}")
    return torch.from_numpy(raw).view(_DTYPES[sent_as]).reshape(shape).to(_DTYPES[dtype])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _output_class(module: str, name: str) -> type[ModelOutput]:
    # Only transformers' own outputs: a message must not choose what is imported.
    if not module.startswith("transformers."):
        raise RequestError(f"{module}.{name} is no output class of transformers")
    found = getattr(importlib.import_module(module), name, None)
    if not (isinstance(found, type) and issubclass(found, ModelOutput)):
        raise RequestError(f"{module}.{name} is no output class of transformers")
    return found


def rows_of(inputs: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Return rows `start` up to `stop` of every tensor input."""
    return {
        key: value[start:stop] if isinstance(value, torch.Tensor) and value.dim() else value
        for key, value in inputs.items()
    }


def join_rows(parts: Sequence[Any]) -> Any:
    """Concatenate outputs of consecutive rows, field by field."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, torch.Tensor):
        if not first.dim():
            raise RequestError(
                "an output without rows cannot be joined; use local for this request"
            )
        return torch.cat(list(parts))
    if isinstance(first, ModelOutput):
        return type(first)(**{key: join_rows([part[key] for part in parts]) for key in first})
    if isinstance(first, (list, tuple)):
        return type(first)(join_rows(items) for items in zip(*parts, strict=True))
    return first
