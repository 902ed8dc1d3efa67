"""What arguments stand for, and the checks of them that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prism.errors import ConfigError

BOXED_MODEL = "digits"


def model_source(text: str) -> str:
    """Return what a MODEL argument stands for: `digits` is the model in the package."""
    if text != BOXED_MODEL:
        return text
    from prism.demo.digits import model_path

    return str(model_path())


def check_local_only(config: Path | None, options: Mapping[str, object]) -> None:
    """Check that nothing meant for local nodes was given together with a cluster of real ones.

    Args:
        config: the cluster file, if one was given.
        options: what was given for local nodes, by option; None was not given.

    Raises:
        ConfigError: an option would have no effect.
    """
    for option, value in options.items():
        if config is not None and value is not None:
            raise ConfigError(
                f"{option} {value} is for local nodes, and {config} names real ones; "
                f"leave {option} or --cluster out"
            )


def check_at_least(least: int, options: Mapping[str, int | None]) -> None:
    """Check numbers given for options; None was not given.

    Typer's own check does not say which number it refuses.

    Raises:
        ConfigError: a number is too small.
    """
    for option, value in options.items():
        if value is not None and value < least:
            raise ConfigError(f"{option} must be at least {least}, not {value}")
