"""How a fine-tuning looks: its progress, and what every plan was worth before and after."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prism.cli import output

if TYPE_CHECKING:
    from prism.fidelity.finetune import Outcome, Progress
    from prism.perfmap import Accuracy

_LINE_EVERY_S = 30.0
_DOING = {
    "before": "measuring the original",
    "training": "training",
    "after": "measuring the new weights",
}


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """Show progress on stderr: a bar on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda progress: bar.update(
            task, completed=progress.done, description=_description(progress)
        )


class _Lines:
    """A line at the start and the end of each phase, and every half minute between."""

    def __init__(self) -> None:
        self._phase = ""
        self._said_s = 0.0

    def __call__(self, progress: Progress) -> None:
        now_s = time.monotonic()
        due = now_s - self._said_s >= _LINE_EVERY_S
        if due or progress.phase != self._phase or progress.done >= 1.0:
            self._phase, self._said_s = progress.phase, now_s
            print(f"{progress.done:4.0%} {_description(progress)}", file=sys.stderr, flush=True)


def _description(progress: Progress) -> str:
    step = progress.step
    if step is None:
        return _DOING[progress.phase]
    losses = ", ".join(f"{name} {loss:.3g}" for name, loss in step.losses.items())
    left_s = step.elapsed_s * (1 - step.done) / step.done if step.done else 0.0
    return f"training, step {step.number}: loss {losses}; {left_s:.0f} s left"


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return a finished fine-tuning as plain JSON types."""
    return {
        "out": str(outcome.out),
        "fingerprint": outcome.fingerprint,
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "metric": outcome.after[0].metric,
        "samples": outcome.after[0].count,
        "skipped": outcome.skipped,
        "kept": {"metric": outcome.kept.metric, **_values(outcome.kept)},
        "plans": [
            {"plan": after.plan, "before": _values(before), "after": _values(after)}
            for before, after in zip(outcome.before, outcome.after, strict=True)
        ],
    }


def _values(entry: Accuracy) -> dict[str, float | None]:
    return {
        "accuracy": entry.accuracy,
        "drop": entry.drop,
        "drop_low": entry.drop_low,
        "drop_high": entry.drop_high,
    }


def print_outcome(outcome: Outcome) -> None:
    """Print what every plan was worth before and after, and where the model is."""
    from rich.table import Table

    first = outcome.after[0]
    table = Table(title=f"{first.metric} of {first.count} samples that never trained")
    for column in ("plan", "before", "drop", "after", "drop", "95 %"):
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=True)
    for before, after in zip(outcome.before, outcome.after, strict=True):
        low, high = after.drop_low or 0.0, after.drop_high or 0.0
        table.add_row(
            after.plan,
            f"{before.accuracy:.4f}",
            f"{before.drop:.4f}",
            f"{after.accuracy:.4f}",
            f"{after.drop:.4f}",
            f"{low:.4f}..{high:.4f}",
        )
    output.print_table(table)
    kept = outcome.kept
    print(f"exact answers against those of the original: {kept.metric} {kept.accuracy:.4f}")
    if outcome.skipped:
        print(f"{outcome.skipped} files or rows skipped that cannot be used")
    print(f"{outcome.steps} steps in {outcome.seconds:.0f} s; wrote {outcome.out}")
