"""Accuracy by plan, measured before and kept beside a model in `accuracy.json`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from prism.errors import ModelError
from prism.perfmap import Accuracy
from prism.plan import Plan

FILE_NAME = "accuracy.json"
_Z_95 = 1.959963984540054


def accuracy_of(files: str, fingerprint: str) -> tuple[Accuracy, ...]:
    """Return what was measured of exactly this model; nothing where nobody measured.

    Args:
        files: where the model's files lie; only a directory can have a table.
        fingerprint: of the loaded model; a table of other weights says nothing about it.

    Raises:
        ModelError: the table is there but cannot be read.
    """
    path = Path(files) / FILE_NAME
    if not files or not path.is_file():
        return ()
    try:
        table = json.loads(path.read_text())
        if table["model_hash"] != fingerprint:
            return ()
        return tuple(_entry(text, values, table) for text, values in table["plans"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no accuracy table ({error!r}); measure it again") from error


def _entry(text: str, values: dict[str, Any], table: dict[str, Any]) -> Accuracy:
    return Accuracy(
        plan=Plan.parse(text).shape,
        accuracy=float(values["accuracy"]),
        drop=float(values["drop"]),
        count=int(values["count"]),
        task=str(table.get("dataset", "")),
    )


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of `correct` hits in `count`."""
    share, z2 = correct / count, _Z_95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)
