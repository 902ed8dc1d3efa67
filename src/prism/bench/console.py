"""Where a benchmark's tables go."""

from __future__ import annotations

from rich.console import Console


def wide_console(width: int = 170) -> Console:
    """Return a console for tables; in a file, where nobody says how wide it is, `width` wide."""
    console = Console()
    if not console.is_terminal:
        console.width = width
    return console
