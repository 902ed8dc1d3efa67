"""How a value is refused: the gates that every entry of a map passes, from file or profiler."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from prism.errors import MapError, PlanError
from prism.plan import Plan

T = TypeVar("T")


def build(kind: type[T], values: Any) -> T:
    """Make `kind` from a JSON object.

    Raises:
        MapError: the object is none, or lacks a field, or a field is wrong.
    """
    if not isinstance(values, dict):
        raise MapError(f"{kind.__name__} must be an object, not {values!r}")
    known = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            known[field.name] = values[field.name]
        elif field.default is MISSING:
            raise MapError(f"{kind.__name__} lacks {field.name!r}")
    return kind(**known)


def require_number(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> None:
    """Refuse what is no finite number in `low`..`high`."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    # JSON knows integers that no float can hold.
    good = good and abs(value) <= sys.float_info.max and low <= value <= high
    if not good:
        raise MapError(f"{name} must be a number in {low:g}..{high:g}, not {value!r}")


def require_integer(name: str, value: Any, low: int = 0) -> None:
    """Refuse what is no integer of at least `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise MapError(f"{name} must be an integer of at least {low}, not {value!r}")


def require_text(name: str, value: Any) -> None:
    """Refuse what is no text, or empty."""
    if not isinstance(value, str) or not value:
        raise MapError(f"{name} must be a text, not {value!r}")


def require_shape(name: str, value: Any) -> None:
    """Refuse what is not the shape of a plan, the way `Plan.shape` prints it."""
    require_text(name, value)
    try:
        shape = Plan.parse(value).shape
    except PlanError as error:
        raise MapError(f"{name}: {error}") from None
    if shape != value:
        raise MapError(f"{name} must be the plan's shape {shape!r}, not {value!r}")


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return one phrase per key whose two values differ."""
    return [
        f"{key} is {theirs[key]}, the map has {ours[key]}"
        for key in ours
        if ours[key] != theirs[key]
    ]
