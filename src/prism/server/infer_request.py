"""A request of the Open Inference Protocol: from its bytes to tensors and wishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prism.server.binary_tensors import DATATYPES, read_binary
from prism.server.errors import BadRequest
from prism.server.json_body import read_object
from prism.server.json_tensors import read_json
from prism.server.tensor_specs import TensorSpec

_BINARY_SIZE = "binary_data_size"
_BINARY_OUTPUTS = "binary_data_output"
_MOST_DIMENSIONS = 8
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output that a request names.

    Attributes:
        name: of the output.
        binary: whether it comes as binary data; None = as the request says for all.
        classes: the so many best classes in place of the values; 0 = the values.
    """

    name: str
    binary: bool | None = None
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request.

    Attributes:
        id: that the response repeats; None where it has none.
        inputs: arrays by name.
        outputs: that are wanted; empty = all.
        parameters: of the request, without those of the binary data.
        binary: whether outputs come as binary data unless one says otherwise.
    """

    id: str | None
    inputs: Mapping[str, np.ndarray[Any, Any]]
    outputs: tuple[RequestedOutput, ...]
    parameters: Mapping[str, Any]
    binary: bool


def read_request(
    body: bytes, header_length: str | None, specs: Sequence[TensorSpec], most_json_bytes: int
) -> InferRequest:
    """Read a request.

    Args:
        body: JSON, and behind it the binary data of the inputs that have some.
        header_length: value of `Inference-Header-Content-Length`: bytes of the JSON; None = all.
        specs: of the model's inputs.
        most_json_bytes: longest JSON that is read.

    Raises:
        BadRequest: says what is wrong, and what was expected.
        TooLarge: the JSON is too long.
    """
    raw = memoryview(body)
    size = len(raw) if header_length is None else _header_size(header_length, len(raw))
    document = read_object(raw[:size], most_json_bytes)
    given = document.get("id")
    if given is not None and not isinstance(given, str):
        raise BadRequest("id must be a string")
    parameters = _object_of(document, "parameters", "the request")
    binary = _flag(parameters.pop(_BINARY_OUTPUTS, False), _BINARY_OUTPUTS)
    return InferRequest(
        id=given,
        inputs=_read_inputs(_objects(document, "inputs", needed=True), raw[size:], specs),
        outputs=tuple(_read_output(each) for each in _objects(document, "outputs")),
        parameters=parameters,
        binary=binary,
    )


def _header_size(text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) <= most):
        raise BadRequest(
            f"Inference-Header-Content-Length must be the size of the JSON, 0 to the {most} bytes "
            f"of the body, not {text[:_LONGEST_NAME]!r}"
        )
    return int(text)


def _read_inputs(
    entries: Sequence[dict[str, Any]], raw: memoryview, specs: Sequence[TensorSpec]
) -> dict[str, np.ndarray[Any, Any]]:
    """Read all inputs; each takes its part of the binary data, in their order."""
    known = {spec.name: spec for spec in specs}
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    place = 0
    for entry in entries:
        name = _name(entry, "an input")
        if name in inputs:
            raise BadRequest(f"input {name} is given twice")
        if name not in known:
            raise BadRequest(f"the model takes no input {name!r}; it takes {', '.join(known)}")
        datatype, shape = _described(entry, known[name])
        parameters = _object_of(entry, "parameters", name)
        _refuse_unknown(parameters, name, (_BINARY_SIZE,))
        if _BINARY_SIZE not in parameters:
            inputs[name] = read_json(name, datatype, shape, entry.get("data"))
            continue
        if "data" in entry:
            raise BadRequest(f"{name} has both data and {_BINARY_SIZE}; leave one out")
        size = parameters[_BINARY_SIZE]
        left = len(raw) - place
        if type(size) is not int or not 0 <= size <= left:
            raise BadRequest(
                f"{_BINARY_SIZE} of {name} must lie in 0..{left}, the bytes that are left of the "
                f"body, not {str(size)[:_LONGEST_NAME]}"
            )
        inputs[name] = read_binary(name, datatype, shape, raw[place : place + size])
        place += size
    if place != len(raw):
        raise BadRequest(
            f"{len(raw) - place} bytes of the body belong to no input; {_BINARY_SIZE} of the "
            f"inputs tells of {place}"
        )
    _check_tokens(inputs, known)
    return inputs


def _check_tokens(
    inputs: Mapping[str, np.ndarray[Any, Any]], known: Mapping[str, TensorSpec]
) -> None:
    """Check that what is told of every token has one shape."""
    tokens = [name for name in inputs if set(known[name].shape) == {-1}]
    for name in tokens[1:]:
        if inputs[name].shape != inputs[tokens[0]].shape:
            raise BadRequest(
                f"shape of {name} must be {list(inputs[tokens[0]].shape)} like {tokens[0]}, "
                f"not {list(inputs[name].shape)}"
            )


def _described(entry: Mapping[str, Any], spec: TensorSpec) -> tuple[str, tuple[int, ...]]:
    """Return datatype and shape of an input that fit the model."""
    name, datatype, shape = spec.name, entry.get("datatype"), entry.get("shape")
    if datatype not in spec.datatypes:
        wanted = " or ".join(spec.datatypes)
        other = f"{datatype!r}" if datatype in DATATYPES else str(datatype)[:_LONGEST_NAME]
        raise BadRequest(f"datatype of {name} must be {wanted}, not {other}")
    whole = isinstance(shape, list) and all(type(each) is int and each >= 0 for each in shape)
    if not whole or len(shape) > _MOST_DIMENSIONS:  # type: ignore[arg-type]
        raise BadRequest(f"shape of {name} must be a list of sizes, such as {_example(spec)}")
    sizes = tuple(shape)  # type: ignore[arg-type]
    fits = len(sizes) == len(spec.shape) and all(
        wanted in (-1, size) for size, wanted in zip(sizes, spec.shape, strict=True)
    )
    if not fits or 0 in sizes:
        raise BadRequest(
            f"shape of {name} must be {list(spec.shape)} (-1 = any size above 0), not {list(sizes)}"
        )
    return datatype, sizes


def _example(spec: TensorSpec) -> list[int]:
    return [1 if size < 0 else size for size in spec.shape]


def _read_output(entry: dict[str, Any]) -> RequestedOutput:
    name = _name(entry, "an output")
    parameters = _object_of(entry, "parameters", name)
    _refuse_unknown(parameters, name, ("binary_data", "classification"))
    binary = parameters.get("binary_data")
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise BadRequest(f"classification of {name} must be a number of classes")
    return RequestedOutput(
        name, None if binary is None else _flag(binary, f"binary_data of {name}"), classes
    )


def _refuse_unknown(parameters: Mapping[str, Any], name: str, known: Sequence[str]) -> None:
    for each in parameters:
        if each not in known:
            raise BadRequest(
                f"{name} has a parameter {each[:_LONGEST_NAME]!r}, which this server does not "
                f"take; it takes {', '.join(known)}"
            )


def _objects(
    document: Mapping[str, Any], key: str, *, needed: bool = False
) -> list[dict[str, Any]]:
    entries = document.get(key)
    if entries is None and not needed:
        return []
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise BadRequest(f"{key} must be a list of objects")
    if needed and not entries:
        raise BadRequest(f"{key} is empty; give the tensors to run on")
    return entries


def _object_of(entry: Mapping[str, Any], key: str, owner: str) -> dict[str, Any]:
    value = entry.get(key)
    if value is not None and not isinstance(value, dict):
        raise BadRequest(f"{key} of {owner} must be an object")
    return dict(value or {})


def _name(entry: Mapping[str, Any], what: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise BadRequest(f"{what} must have a name, which is a string")
    return name[:_LONGEST_NAME]


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false")
    return value
