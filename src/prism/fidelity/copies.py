"""One model at every precision that plans ask for, and what it gives under a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from prism.engine.variant import as_float32
from prism.errors import UnsupportedPrecision
from prism.models.inputs import prepare
from prism.models.load import LoadedModel
from prism.models.precision import at_precision
from prism.models.virtual import virtual
from prism.plan import Plan, Precision


class Copies:
    """A model, and its copies at other precisions, each made when a plan first needs it.

    Args:
        loaded: the model, in float32 where plans have other precisions.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._by_precision: dict[Precision, LoadedModel] = {"float32": loaded}

    def of(self, plan: Plan) -> LoadedModel:
        """Return the model at a plan's precision.

        Raises:
            UnsupportedPrecision: this model or this machine cannot have it; says why.
        """
        found = self._by_precision.get(plan.precision)
        if found is None:
            found = self._by_precision[plan.precision] = at_precision(self.loaded, plan.precision)
        return found

    def possible(self, plans: Iterable[Plan]) -> tuple[tuple[Plan, ...], dict[str, str]]:
        """Return the plans whose precision can be had, and of the others why not, by shape."""
        usable: list[Plan] = []
        refused: dict[str, str] = {}
        for plan in plans:
            try:
                self.of(plan)
            except UnsupportedPrecision as error:
                refused[plan.shape] = str(error)
            else:
                usable.append(plan)
        return tuple(usable), refused


def answer(loaded: LoadedModel, plan: Plan, inputs: Mapping[str, Any]) -> Any:
    """Return what a model gives under a plan, in this process.

    Args:
        loaded: the model, at the plan's precision.
        plan: what is computed; `local` is the unmodified model.
        inputs: as a caller gives them.
    """
    prepared = prepare(loaded.info, inputs, loaded.model)
    mask = prepared.get("attention_mask")
    with torch.inference_mode(), virtual(loaded.model, plan, mask):
        return as_float32(loaded.model(**prepared))
