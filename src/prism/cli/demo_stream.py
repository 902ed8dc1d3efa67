"""How the demo's stream reads: the choice in every step, and what every policy took in all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prism.cli import output

if TYPE_CHECKING:
    from prism.demo.stream import Stream
    from prism.plan import Objective


def stream_report(stream: Stream) -> dict[str, Any]:
    """Return the stream as plain data."""
    from prism.bench.contest import summary

    return {
        "profile": {
            "passes": stream.perf.passes,
            "seconds": stream.perf.seconds_spent,
            "fitted_bps": stream.perf.link.bandwidth_bps,
            "held_out_errors": [each.error for each in stream.perf.held_out],
        },
        "objective": stream.objective.metric,
        "max_accuracy_drop": stream.objective.max_accuracy_drop,
        "point_estimate": stream.objective.point_estimate,
        **summary(stream.results),
    }


def print_stream(stream: Stream) -> None:
    """Print the choice of every step, then the policies side by side."""
    from rich import box
    from rich.table import Table

    from prism.bench.contest import ADAPTIVE, ORACLE, totals

    print(
        f"\nThen prism profiled the model ({stream.perf.passes} forward passes in "
        f"{stream.perf.seconds_spent:.0f} s) and chose the plan itself while the link changed, "
        f"for the least {stream.objective.metric} with {_budget(stream.objective)}:"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in ("Mbit/s", "images", "noticed\ns"):
        table.add_column(column, justify="right")
    table.add_column("chosen", no_wrap=True)
    for column in ("predicted\nms", "measured\nms"):
        table.add_column(column, justify="right")
    table.add_column("local\nms", justify="right")
    table.add_column("best fixed plan\nin hindsight", no_wrap=True)
    for result in stream.results:
        measured = result.measured_s
        noticed = "never" if result.noticed_s is None else f"{result.noticed_s:.1f}"
        table.add_row(
            f"{result.step.bandwidth_bps / 1e6:g}",
            str(result.step.batch),
            noticed,
            result.choice,
            f"{1e3 * result.predicted_s[result.choice]:.1f}",
            f"{1e3 * measured[ADAPTIVE]:.1f}",
            f"{1e3 * measured['local']:.1f}",
            f"{result.best} {1e3 * measured[result.best]:.1f}",
        )
    output.print_table(table)
    policies = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    policies.add_column("policy, one request of every step")
    policies.add_column("ms", justify="right")
    policies.add_column("against adaptive", justify="right")
    by_policy = totals(stream.results)
    names = {ORACLE: "oracle: the best fixed plan of each step", ADAPTIVE: "adaptive"}
    for policy, seconds in sorted(by_policy.items(), key=lambda item: item[1]):
        ratio = seconds / by_policy[ADAPTIVE]
        name = names.get(policy, f"always {policy}")
        policies.add_row(name, f"{1e3 * seconds:.0f}", f"{ratio:.2f}x")
    output.print_table(policies)
    print(
        "the oracle and the fixed plans may lose any accuracy, adaptive may not; noticed: time "
        "until the planner's estimate had the new bandwidth, with no request running"
    )


def _budget(objective: Objective) -> str:
    """Return in words how much accuracy may be lost."""
    if objective.max_accuracy_drop == 0:
        return "exact plans only"
    end = "as measured" if objective.point_estimate else "interval included where there is one"
    points = 100 * objective.max_accuracy_drop
    return f"at most {points:g} points less accuracy ({end})"
