"""Inputs and outputs as JSON plus raw frames: no pickle, in the smallest form that is exact.

Integers travel in the narrowest dtype that holds their values and arrive in their own; uint8
pixels travel compressed without loss where that pays, and everything else as it is.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.utils.generic import ModelOutput

from prism.control import lossless
from prism.errors import ClusterError, RequestError

_NARROW = (torch.uint8, torch.int16, torch.int32)
# Dimensions of an image: channels, height, width.
_IMAGE_DIMS = 3
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
    )
}  # fmt: skip


def pack(tree: Any, pays: lossless.Pays | None = None) -> tuple[Any, list[memoryview]]:
    """Return a JSON description of nested tensors and plain values, and the tensors' bytes.

    Args:
        tree: tensors and plain values in lists, dictionaries and outputs of models.
        pays: whether an image is compressed; None = none is.

    Raises:
        RequestError: something in it is neither.
    """
    packing = _Packing(pays)
    return packing.described(tree), packing.frames


def unpack(description: Any, frames: Sequence[Any]) -> Any:
    """Return what `pack` was given, tensors on the CPU.

    Raises:
        ClusterError: description and frames do not belong together, or are not from `pack`.
    """
    try:
        return _unpack(description, frames)
    except ClusterError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise ClusterError(
            f"a description of tensors cannot be read ({type(error).__name__}: {error})"
        ) from error


class _Packing:
    """One tree on its way into frames."""

    def __init__(self, pays: lossless.Pays | None) -> None:
        self.frames: list[memoryview] = []
        self._pays = pays

    def described(self, tree: Any) -> list[Any]:
        if isinstance(tree, torch.Tensor):
            return self._tensor(tree.detach())
        if isinstance(tree, ModelOutput):
            values = {key: self.described(value) for key, value in tree.items()}
            return ["output", values, type(tree).__module__, type(tree).__qualname__]
        if isinstance(tree, dict):
            wrong = [key for key in tree if not isinstance(key, str)]
            if wrong:
                raise RequestError(f"the key {wrong[0]!r} cannot be sent to a node; use strings")
            return ["dict", {key: self.described(value) for key, value in tree.items()}]
        if isinstance(tree, (list, tuple)):
            kind = "list" if isinstance(tree, list) else "tuple"
            return [kind, [self.described(value) for value in tree]]
        if isinstance(tree, float) and not math.isfinite(tree):
            return ["float", repr(tree)]  # JSON has no word for them
        if tree is None or isinstance(tree, (bool, int, float, str)):
            return ["value", tree]
        raise RequestError(
            f"a {type(tree).__name__} cannot travel between nodes; use tensors, numbers and text"
        )

    def _tensor(self, tensor: torch.Tensor) -> list[Any]:
        if _name(tensor.dtype) not in _DTYPES or tensor.layout != torch.strided:
            raise RequestError(
                f"a {tensor.layout} tensor of {tensor.dtype} cannot travel between nodes; "
                f"use a dense one of {', '.join(_DTYPES)}"
            )
        shape = list(tensor.shape)
        if self._pays is not None and _is_image(tensor):
            compressed = lossless.compress(tensor.cpu(), self._pays)
            if compressed is not None:
                return ["image", self._frame(memoryview(compressed)), shape]
        narrow = _narrowed(tensor)
        index = self._frame(_bytes_of(narrow))
        return ["tensor", index, _name(tensor.dtype), _name(narrow.dtype), shape]

    def _frame(self, frame: memoryview) -> int:
        """Add a frame; return its index."""
        self.frames.append(frame)
        return len(self.frames) - 1


def _is_image(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.uint8 and tensor.dim() >= _IMAGE_DIMS


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
    return flat.view(torch.uint8).numpy().data


def _unpack(description: Any, frames: Sequence[Any]) -> Any:
    kind, *rest = description
    if kind == "value":
        (value,) = rest
        return value
    if kind == "float":
        (text,) = rest
        return float(text)
    if kind == "tensor":
        index, dtype, sent_as, shape = rest
        return _unpack_tensor(frames[index], dtype, sent_as, shape)
    if kind == "image":
        index, shape = rest
        return lossless.decompress(frames[index], shape)
    if kind in ("list", "tuple"):
        (items,) = rest
        values = [_unpack(item, frames) for item in items]
        return values if kind == "list" else tuple(values)
    if kind not in ("dict", "output"):
        raise ClusterError(f"a description of kind {kind!r} is not understood")
    fields = {key: _unpack(item, frames) for key, item in rest[0].items()}
    return fields if kind == "dict" else _output_class(*rest[1:])(**fields)


def _unpack_tensor(frame: Any, dtype: str, sent_as: str, shape: list[int]) -> torch.Tensor:
    if dtype not in _DTYPES or sent_as not in _DTYPES:
        raise ClusterError(f"a tensor of dtype {dtype} sent as {sent_as} is not understood")
    raw = np.frombuffer(frame, dtype=np.uint8).copy()
    if min(shape, default=0) < 0 or raw.size != math.prod(shape) * _DTYPES[sent_as].itemsize:
        raise ClusterError(f"{raw.size} bytes are no {sent_as} tensor of shape {tuple(shape)}")
    if not raw.size:  # has no stride to view it by
        return torch.empty(shape, dtype=_DTYPES[dtype])
    return torch.from_numpy(raw).view(_DTYPES[sent_as]).reshape(shape).to(_DTYPES[dtype])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _output_class(module: str, name: str) -> type[ModelOutput]:
    # Only transformers' own outputs: a message must not choose what is imported.
    if not module.startswith("transformers."):
        raise ClusterError(f"{module}.{name} is no output class of transformers")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ClusterError(f"this transformers has no {module}.{name}") from error
    if not (isinstance(found, type) and issubclass(found, ModelOutput)):
        raise ClusterError(f"{module}.{name} is no output class of transformers")
    return found
