"""Another forward for a module, inside its hooks, for as long as a call lasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def instead(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Give a module another forward; return what takes it away."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward

    def undo() -> None:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before

    return undo
