"""Points of which a map holds a prediction: held out to test it, or left out for want of time."""

from __future__ import annotations

from dataclasses import dataclass

from prism.perfmap.checks import require_integer, require_number, require_shape


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A point that was measured but not used, beside what the map predicted for it."""

    plan: str
    batch: int
    length: int
    predicted_s: float
    measured_s: float

    def __post_init__(self) -> None:
        require_shape("held-out plan", self.plan)
        require_integer(f"held-out batch of {self.plan}", self.batch, 1)
        require_integer(f"held-out length of {self.plan}", self.length, 1)
        require_number(f"held-out predicted_s of {self.plan}", self.predicted_s)
        require_number(f"held-out measured_s of {self.plan}", self.measured_s, low=1e-12)

    @property
    def error(self) -> float:
        """Relative error of the prediction; negative = too optimistic."""
        return self.predicted_s / self.measured_s - 1.0


@dataclass(frozen=True, slots=True)
class LeftOutPoint:
    """A point that did not fit into the profile's budget.

    Attributes:
        plan: shape of the plan.
        batch: rows.
        length: positions per row.
        predicted_s: what the map predicts at the measured link; None = this plan was never run.
        expected_s: what a pass was expected to take when there was no time for it; rougher, but
            known of every plan. None where nobody said.
    """

    plan: str
    batch: int
    length: int
    predicted_s: float | None = None
    expected_s: float | None = None

    def __post_init__(self) -> None:
        require_shape("left-out plan", self.plan)
        require_integer(f"left-out batch of {self.plan}", self.batch, 1)
        require_integer(f"left-out length of {self.plan}", self.length, 1)
        for name in ("predicted_s", "expected_s"):
            if getattr(self, name) is not None:
                require_number(f"left-out {name} of {self.plan}", getattr(self, name))
