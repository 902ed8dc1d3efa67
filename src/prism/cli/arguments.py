"""Arguments that several commands share: how they are explained, and how they are checked."""

from __future__ import annotations

from collections.abc import Mapping

from prism.errors import ConfigError

MODEL_HELP = (
    "digits, the model in the package; a directory (./digits for one of that name); a Hugging Face "
    "id; or random:NAME_OR_DIR, random weights for timing, such as random:vit-base."
)
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
