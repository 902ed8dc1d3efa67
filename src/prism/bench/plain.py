"""The unmodified model beside prism's: what it answers, and what one core needs for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from prism.models.inputs import prepare
from prism.models.load import LoadedModel, load


def plain_forward(source: str, core: int | None = None) -> Callable[[Mapping[str, Any]], Any]:
    """Load a model into this process; return a call of it with plain transformers.

    Sets torch to one thread in this process, as nodes with one thread have.

    Args:
        source: a MODEL argument.
        core: to run on; the process leaves it again after every call. None = any.

    Returns:
        A function from a request's inputs to the model's output.
    """
    torch.set_num_threads(1)
    return forward_of(load(source), core)


def forward_of(loaded: LoadedModel, core: int | None = None) -> Callable[[Mapping[str, Any]], Any]:
    """Return a call of a loaded model with plain transformers.

    Args:
        loaded: the model.
        core: to run on; the process leaves it again after every call. None = any.
    """

    def forward(inputs: Mapping[str, Any]) -> Any:
        before = os.sched_getaffinity(0)
        if core is not None:
            os.sched_setaffinity(0, {core})
        try:
            with torch.inference_mode():
                return loaded.model(**prepare(loaded.info, inputs, loaded.model))
        finally:
            os.sched_setaffinity(0, before)

    return forward
