"""What arguments stand for, and the checks of them that several commands share."""

from __future__ import annotations

from collections.abc import Mapping

from prism.errors import ConfigError

BOXED_MODEL = "digits"


def model_source(text: str) -> str:
    """Return what a MODEL argument stands for: `digits` is the model in the package."""
    if text != BOXED_MODEL:
        return text
    from prism.digits import model_path

    return str(model_path())


def check_at_least(least: int, options: Mapping[str, int | None]) -> None:
    """Check numbers given for options; None was not given.

    Typer's own check does not say which number it refuses.

    Raises:
        ConfigError: a number is too small.
    """
    for option, value in options.items():
        if value is not None and value < least:
            raise ConfigError(f"{option} must be at least {least}, not {value}")
