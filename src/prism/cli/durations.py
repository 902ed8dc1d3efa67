"""Times that a person gives: `90s`, `20m`, `1.5h`."""

from __future__ import annotations

import math
import re

from prism.errors import ConfigError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def read_seconds(option: str, text: str) -> float:
    """Return the seconds that an option's text stands for.

    Raises:
        ConfigError: it is no time above 0.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smh])", text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise ConfigError(f"{option} {text!r} is no time above 0; write 90s, 20m or 1.5h")
    return seconds


def tell_seconds(seconds: float) -> str:
    """Return a time as `read_seconds` reads it, rounded up: `90s`, `5m`."""
    if seconds < 120:
        return f"{max(1, math.ceil(seconds))}s"
    return f"{math.ceil(seconds / 60)}m"
