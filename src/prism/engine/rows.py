"""Rows of a batch: cut for the nodes of a plan, joined again from their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.utils.generic import ModelOutput

from prism.errors import RequestError


def rows_of(inputs: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Return rows `start` up to `stop` of every tensor input; other values as they are."""
    return {
        key: value[start:stop] if isinstance(value, torch.Tensor) and value.dim() else value
        for key, value in inputs.items()
    }


def join_rows(parts: Sequence[Any]) -> Any:
    """Concatenate outputs of consecutive rows, field by field.

    Raises:
        RequestError: a field, such as a loss, has no rows.
    """
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
    if isinstance(first, dict):
        return {key: join_rows([part[key] for part in parts]) for key in first}
    if isinstance(first, (list, tuple)):
        return type(first)(join_rows(items) for items in zip(*parts, strict=True))
    return first
