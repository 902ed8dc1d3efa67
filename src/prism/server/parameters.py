"""The parameters by which a request says how it wants to be answered; the same on every route."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from prism.output_form import FULL, OutputForm
from prism.plan import Metric, Objective, Plan
from prism.server.errors import BadRequest
from prism.server.work import Wish

_AUTO = "auto"
_LONGEST_S = 86_400.0
NAMES = ("plan", "objective", "max_accuracy_drop", "deadline_ms", "output")


def wish_of(
    parameters: Mapping[str, Any],
    usual: Objective,
    client: str,
    output: OutputForm | None = None,
) -> Wish:
    """Return what the parameters of a request ask for.

    Args:
        parameters: as they came; see `NAMES`.
        usual: the server's objective, of which a request may change a part.
        client: whom the request comes from.
        output: the form that the route gives, where a request has no choice.

    Raises:
        BadRequest: a parameter is unknown or has a wrong type.
        InputError: a value is none of those that there are.
    """
    names = NAMES if output is None else NAMES[:-1]
    for name in parameters:
        if name not in names:
            raise BadRequest(f"unknown parameter {name[:100]!r}; there are {', '.join(names)}")
    plan = _text(parameters, "plan")
    if plan not in (None, _AUTO):
        Plan.parse(plan)
    wanted = _text(parameters, "output")
    deadline_ms = _number(parameters, "deadline_ms")
    if deadline_ms is not None and not 0 < deadline_ms <= _LONGEST_S * 1e3:
        raise BadRequest(f"deadline_ms must lie above 0, up to a day, not {deadline_ms:g}")
    return Wish(
        plan=plan,
        objective=_objective(parameters, usual),
        deadline_s=None if deadline_ms is None else deadline_ms / 1e3,
        output=output or (FULL if wanted is None else OutputForm.parse(wanted)),
        client=client,
    )


def _objective(parameters: Mapping[str, Any], usual: Objective) -> Objective | None:
    metric = _text(parameters, "objective")
    drop = _number(parameters, "max_accuracy_drop")
    if metric is None and drop is None:
        return None
    return replace(
        usual,
        metric=usual.metric if metric is None else cast(Metric, metric),
        max_accuracy_drop=usual.max_accuracy_drop if drop is None else drop,
    )


def _text(parameters: Mapping[str, Any], name: str) -> str | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} must be a string, not {str(value)[:100]}")
    return value


def _number(parameters: Mapping[str, Any], name: str) -> float | None:
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadRequest(f"{name} must be a number, not {str(value)[:100]!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadRequest(f"{name} must be a finite number")
    return number
