"""Tensors as the binary data of the Open Inference Protocol: little-endian, row after row."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from prism.server.errors import BadRequest

BYTES = "BYTES"
NUMPY_TYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
}
DATATYPES = (*NUMPY_TYPES, BYTES)
# float32 holds every bfloat16 as it is.
_OF_TORCH = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.float32: "FP32",
    torch.bfloat16: "FP32",
}


def datatype_of(dtype: torch.dtype) -> str:
    """Return the protocol's word for a dtype that models give."""
    return _OF_TORCH[dtype]


def array_of(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor that a model gave as an array of its protocol datatype."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: np.ndarray[Any, Any] = tensor.detach().numpy()
    return array


def read_binary(
    name: str, datatype: str, shape: Sequence[int], raw: memoryview
) -> np.ndarray[Any, Any]:
    """Return the tensor that binary data hold, as a copy; of BYTES an array of `bytes` objects.

    Args:
        name: of the tensor.
        datatype: one of `DATATYPES`.
        shape: sizes, none below 0.
        raw: its bytes, no more and no fewer.

    Raises:
        BadRequest: it has not as many bytes as its shape says, or BOOL other values than 0 and 1.
    """
    count = math.prod(shape)
    if datatype == BYTES:
        items = np.empty(count, dtype=object)
        items[:] = read_strings(name, count, raw)
        return items.reshape(shape)
    dtype = NUMPY_TYPES[datatype]
    wanted = count * dtype.itemsize
    if len(raw) != wanted:
        raise BadRequest(
            f"{name} has {len(raw)} bytes; {datatype} of shape {list(shape)} are {wanted}"
        )
    if datatype == "BOOL":
        bits = np.frombuffer(raw, dtype=np.uint8)
        if (bits > 1).any():
            raise BadRequest(f"{name} is BOOL, whose bytes are 0 or 1, and holds {bits.max()}")
        return bits.astype(bool).reshape(shape)
    array: np.ndarray[Any, Any] = np.frombuffer(raw, dtype=dtype).reshape(shape).copy()
    return array


def read_strings(name: str, count: int, raw: memoryview) -> list[bytes]:
    """Return the elements of a BYTES tensor: each its length in 4 bytes, then itself.

    Raises:
        BadRequest: they are cut short, or more or fewer than `count`.
    """
    items: list[bytes] = []
    place = 0
    while place < len(raw):
        if len(items) == count:
            raise BadRequest(f"{name} has more than the {count} elements of its shape")
        if place + 4 > len(raw):
            raise BadRequest(f"{name} ends within the length of element {len(items)}")
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4
        if place + length > len(raw):
            raise BadRequest(
                f"element {len(items)} of {name} has {length} bytes, and {len(raw) - place} came"
            )
        items.append(bytes(raw[place : place + length]))
        place += length
    if len(items) != count:
        raise BadRequest(f"{name} has {len(items)} elements; its shape says {count}")
    return items


def to_binary(array: np.ndarray[Any, Any]) -> bytes:
    """Return an array as binary data; one of `bytes` objects as BYTES."""
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(each)) + each for each in array.flat)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
