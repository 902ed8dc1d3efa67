"""Tensors as JSON: the `data` of the Open Inference Protocol, flat or nested."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from prism.server.binary_tensors import BYTES, NUMPY_TYPES
from prism.server.errors import BadRequest

# What numpy makes of a list says what was in it.
_KINDS = {"BOOL": "b", "UINT8": "iu", "INT32": "iu", "INT64": "iu", "FP16": "fiu", "FP32": "fiu"}
_WORDS = {"b": "true or false", "iu": "whole numbers", "fiu": "numbers"}
_MOST_NESTED = 16


def read_json(name: str, datatype: str, shape: Sequence[int], data: Any) -> np.ndarray[Any, Any]:
    """Return the tensor that a JSON value holds; of BYTES an array of `bytes` objects.

    Args:
        name: of the tensor.
        datatype: one of `binary_tensors.DATATYPES`.
        shape: sizes, none below 0.
        data: elements in order, in one list or in nested ones.

    Raises:
        BadRequest: it holds something else, or as many as the shape does not say.
    """
    if not isinstance(data, list):
        raise BadRequest(f"data of {name} must be a list, not {type(data).__name__}")
    array = _strings(name, data) if datatype == BYTES else _numbers(name, datatype, data)
    if array.shape != tuple(shape) and array.ndim != 1:
        raise BadRequest(f"data of {name} is nested as {list(array.shape)}, not {list(shape)}")
    if array.size != math.prod(shape):
        raise BadRequest(
            f"data of {name} has {array.size} elements; shape {list(shape)} has others"
        )
    return array.reshape(shape)


def _numbers(name: str, datatype: str, data: list[Any]) -> np.ndarray[Any, Any]:
    kinds, dtype = _KINDS[datatype], NUMPY_TYPES[datatype]
    wanted = f"data of {name} must be {_WORDS[kinds]} for {datatype}"
    try:
        # One text among numbers would have numpy make texts of them all, each as long as that one.
        if not all(isinstance(leaf, int | float) for leaf in _flat(data)):
            raise ValueError
        found = np.array(data)
    except (ValueError, OverflowError, RecursionError) as error:
        raise BadRequest(f"{wanted}, in one list or in nested ones of equal lengths") from error
    if found.size == 0:
        return found.astype(dtype)
    if found.dtype.kind not in kinds:
        raise BadRequest(f"{wanted}, in one list or in nested ones of equal lengths")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise BadRequest(f"{wanted}, from {limits.min} to {limits.max}")
        return found.astype(dtype)
    with np.errstate(over="ignore"):
        made = found.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(made).all():
        raise BadRequest(f"{wanted}, up to {np.finfo(dtype).max:g}")
    return made


def _flat(data: Any) -> Iterator[Any]:
    """Yield what is no list, at any depth."""
    for each in data:
        if isinstance(each, list):
            yield from _flat(each)
        else:
            yield each


def _strings(name: str, data: list[Any]) -> np.ndarray[Any, Any]:
    found = list(_leaves(name, data))
    array = np.empty(len(found), dtype=object)
    array[:] = found
    return array


def _leaves(name: str, data: list[Any], depth: int = 1) -> Iterator[bytes]:
    for each in data:
        if isinstance(each, list) and depth < _MOST_NESTED:
            yield from _leaves(name, each, depth + 1)
        elif isinstance(each, str):
            yield each.encode("utf-8", "surrogatepass")
        else:
            raise BadRequest(f"data of {name} must be strings for {BYTES}")


def to_json(array: np.ndarray[Any, Any]) -> list[Any]:
    """Return an array as one flat list; what JSON has no number for becomes null.

    Raises:
        BadRequest: an element of BYTES is not UTF-8.
    """
    if array.dtype == object:
        try:
            return [each.decode() for each in array.flat]
        except UnicodeDecodeError as error:
            raise BadRequest("an output holds no text; ask for binary data") from error
    values: list[Any] = array.ravel().tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [value if np.isfinite(value) else None for value in values]
    return values
