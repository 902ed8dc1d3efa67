"""What the task routes take, as the server's OpenAPI description says it."""

from __future__ import annotations

from typing import Any

from prism.server.embeddings import MOST_INPUTS

_NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_PARAMETERS = {
    "type": "object",
    "description": "how to run it",
    "properties": {
        "plan": {"type": "string"},
        "objective": {"enum": ["latency", "energy", "edp"]},
        "max_accuracy_drop": {"type": "number", "minimum": 0, "maximum": 1},
        "deadline_ms": {"type": "number", "exclusiveMinimum": 0},
    },
    "additionalProperties": False,
}
_MODEL = {"type": "string", "description": "may be left out where the server has one model"}
_TOP_K = {"type": "integer", "minimum": 1, "default": 5}
_TRUNCATE = {"type": "boolean", "default": False}


def _body(**schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a request body of one or two media types."""
    names = {"json": "application/json", "form": "multipart/form-data"}
    content = {names[name]: {"schema": schema} for name, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}


EMBEDDINGS = _body(
    json={
        "type": "object",
        "required": ["input"],
        "properties": {
            "model": _MODEL,
            "input": {
                "oneOf": [
                    {"type": "string", "minLength": 1},
                    {
                        "type": "array",
                        "items": {"type": "string", "minLength": 1},
                        "minItems": 1,
                        "maxItems": MOST_INPUTS,
                    },
                    _NUMBERS,
                    {"type": "array", "items": _NUMBERS, "minItems": 1, "maxItems": MOST_INPUTS},
                ]
            },
            "encoding_format": {"enum": ["float", "base64"], "default": "float"},
            "dimensions": {"type": "integer", "minimum": 1},
            "truncate": _TRUNCATE,
            "truncate_prompt_tokens": {"type": "integer", "minimum": -1},
            "user": {"type": "string"},
            "parameters": _PARAMETERS,
        },
        "additionalProperties": False,
    }
)

CLASSIFY = _body(
    json={
        "type": "object",
        "properties": {
            "model": _MODEL,
            "image": {"type": "string", "contentEncoding": "base64"},
            "text": {"type": "string", "minLength": 1},
            "top_k": _TOP_K,
            "truncate": _TRUNCATE,
            "parameters": _PARAMETERS,
        },
        "oneOf": [{"required": ["image"]}, {"required": ["text"]}],
        "additionalProperties": False,
    },
    form={
        "type": "object",
        "properties": {
            "model": _MODEL,
            "file": {"type": "string", "format": "binary"},
            "text": {"type": "string", "minLength": 1},
            "top_k": _TOP_K,
            "truncate": _TRUNCATE,
            **_PARAMETERS["properties"],  # type: ignore[dict-item]
        },
        "oneOf": [{"required": ["file"]}, {"required": ["text"]}],
        "additionalProperties": False,
    },
)
