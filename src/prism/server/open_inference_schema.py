"""The schema of inference requests and responses, for the server's OpenAPI description."""

from __future__ import annotations

from typing import Any

from prism.server.binary_tensors import DATATYPES

_PARAMETERS = {
    "type": "object",
    "properties": {
        "plan": {"type": "string", "examples": ["auto", "local", "seq:2:C10"]},
        "objective": {"type": "string", "enum": ["latency", "energy", "edp"]},
        "max_accuracy_drop": {"type": "number", "minimum": 0, "maximum": 1},
        "deadline_ms": {"type": "number", "exclusiveMinimum": 0},
        "output": {"type": "string", "examples": ["full", "logits", "top_k:5", "pooled"]},
        "binary_data_output": {"type": "boolean"},
        "timeout": {"type": "integer", "description": "Like deadline_ms, in microseconds."},
    },
}
_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "enum": list(DATATYPES)},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "parameters": {
            "type": "object",
            "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
        },
        "data": {"type": "array"},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "minItems": 1, "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "binary_data": {"type": "boolean"},
                            "classification": {"type": "integer", "minimum": 0},
                        },
                    },
                },
            },
        },
    },
}
_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "description": "Bytes of the JSON, where binary data follow it.",
    "schema": {"type": "string"},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}


def _failure(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ERROR}}}


INFER: dict[str, Any] = {
    "parameters": [_LENGTH],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _REQUEST},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "responses": {
        "400": _failure("The request cannot be read, or does not fit the model."),
        "401": _failure("The key is not known."),
        "404": _failure("There is no such model."),
        "413": _failure("The body is too long."),
        "503": _failure("Too many requests wait, or no node can answer; see Retry-After."),
        "504": _failure("There was no answer within the deadline."),
    },
}
