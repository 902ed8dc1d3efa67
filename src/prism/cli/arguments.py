"""Arguments that several commands share: how they are explained, and how they are checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from prism.errors import ConfigError, PlanError
from prism.plan import Plan

MODEL_HELP = (
    "digits, the model in the package; a directory (./digits for one of that name); a Hugging Face "
    "id; or random:NAME_OR_DIR, random weights for timing, such as random:vit-base."
)
NO_LABELS_HELP = "Do not look at labels that DATA has."
POINT_ESTIMATE_HELP = "Compare the measured drop, not the upper end of its 95 % interval."


def check_at_least(least: int, options: Mapping[str, int | None]) -> None:
    """Check numbers given for options; None was not given.

    Typer's own check does not say which number it refuses.

    Raises:
        ConfigError: a number is too small.
    """
    for option, value in options.items():
        if value is not None and value < least:
            raise ConfigError(f"{option} must be at least {least}, not {value}")


def read_plans(text: str | None) -> tuple[Plan, ...] | None:
    """Return the plans of `--plans`, separated by commas; None where the option was not given.

    Raises:
        PlanError: it names no plan, or one that is none.
    """
    if text is None:
        return None
    plans = tuple(Plan.parse(each) for each in text.split(",") if each.strip())
    if not plans:
        raise PlanError("--plans names no plan; give some, such as seq:2:C10,seq:2:L10")
    return plans


def check_file_place(option: str, path: Path, advice: str) -> None:
    """Check, before any work, that a file can be written or replaced.

    Args:
        option: that names the file.
        path: of the file.
        advice: what else to do.

    Raises:
        ConfigError: it is a directory, or nothing can be written where it lies.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a directory; name a file in it")
    if not os.access(path.parent, os.W_OK):
        state = "cannot be written to" if path.parent.is_dir() else "is no directory"
        raise ConfigError(f"{path.parent} {state}; {advice}")
