"""`prism demo`: is it true here? The model in the package, under every plan, in two minutes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from prism.cli import output
from prism.cli.arguments import POINT_ESTIMATE_HELP, check_at_least
from prism.cli.demo_stream import print_stream, stream_report
from prism.cli.target import Target, read_target
from prism.errors import ConfigError
from prism.plan import Metric, Objective, Plan

if TYPE_CHECKING:
    import torch

    from prism.demo.comparison import PlanResult
    from prism.demo.stream import Stream


_THREADS = 1  # of every node


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: prism demo --nodes 3 --link 20mbit,5ms")(demo)


def demo(
    nodes: Annotated[int, typer.Option(help="Node processes to start.")] = 2,
    link: Annotated[str, typer.Option(help="The emulated link between them.")] = "100mbit,3ms",
    images: Annotated[int, typer.Option(help="Images to run, at most 400.")] = 400,
    plan: Annotated[
        str, typer.Option(help="auto: compare all, then adapt; or one plan to compare with local.")
    ] = "auto",
    objective: Annotated[
        str, typer.Option(help="What adapting is for: latency, energy or edp.")
    ] = "latency",
    max_accuracy_drop: Annotated[
        float, typer.Option(help="What adapting may cost: 0.03 = 3 points.")
    ] = 0.03,
    point_estimate: Annotated[
        bool, typer.Option("--point-estimate", help=POINT_ESTIMATE_HELP)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Profile, compare and adapt on this machine: the digits model on images it never saw.

    First every plan answers all images. Then prism profiles the model, and the planner chooses
    for batches of changing size while the emulated link changes.
    """
    check_at_least(2, {"--nodes": nodes})
    check_at_least(1, {"--images": images})
    target = read_target(None, needed=nodes, threads=_THREADS, link=link)
    budget = Objective(cast(Metric, objective), max_accuracy_drop, point_estimate)
    goal = budget if plan == "auto" else None
    plans = _plans(plan, target.names)
    pixels, labels = _held_out(images)
    results, stream = _run_both(plans, target, pixels, labels, goal)
    report = _report(target, results)
    if stream:
        report["stream"] = stream_report(stream)
    if as_json:
        output.print_json(report)
        return
    _print_table(results)
    for line in [*_notes(report), *_findings(results)]:
        print(line)
    if stream:
        print_stream(stream)
    print(json.dumps(report))


def _plans(plan: str, nodes: Sequence[str]) -> Sequence[Plan]:
    """Return the plans to compare, one node's first."""
    from prism.demo.comparison import plans_for

    if plan == "auto":
        return plans_for(len(nodes))
    named = Plan.parse(plan)
    named.place(nodes)
    return (Plan(), named)


def _held_out(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return so many held-out images, spread evenly over all of them, and their digits."""
    import torch

    from prism.demo.digits import held_out

    pixels, labels = held_out()
    if count > len(labels):
        raise ConfigError(f"--images {count} is more than the {len(labels)} held out; ask for less")
    chosen = torch.linspace(0, len(labels) - 1, count).long().numpy()
    return torch.from_numpy(pixels[chosen]), torch.from_numpy(labels[chosen])


def _run_both(
    plans: Sequence[Plan],
    target: Target,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    goal: Objective | None,
) -> tuple[list[PlanResult], Stream | None]:
    """Compare the plans; with a goal, go on to the stream."""
    from rich.console import Console
    from rich.progress import Progress

    from prism.demo.comparison import compare, requests_for
    from prism.demo.stream import stream
    from prism.models.source import DIGITS

    output.quiet_libraries()
    with output.progress(f"opening {target}"):
        opened = target.open()
    with opened as cluster:
        with output.progress("loading the digits model"):
            model = cluster.load(DIGITS)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            total = requests_for(len(pixels), plans)
            task = progress.add_task(f"{len(pixels)} images, {len(plans)} plans", total=total)
            results = compare(model, plans, pixels, labels, lambda: progress.advance(task))

            def tell(doing: str, total: int, done: int) -> None:
                progress.update(task, description=doing, total=total, completed=done)

            return results, stream(cluster, model, pixels, goal, tell) if goal else None


def _report(target: Target, results: Sequence[PlanResult]) -> dict[str, Any]:
    from prism.launch.processes import cores_for

    return {
        "model": "digits",
        "nodes": len(target.names),
        "threads_per_node": _THREADS,
        "own_core_per_node": all(cores_for(len(target.names), _THREADS)),
        "link": {"shape": target.link, "kind": output.EMULATED},
        "plans": [result.to_dict() for result in results],
    }


def _print_table(results: Sequence[PlanResult]) -> None:
    from rich import box
    from rich.table import Table

    batch = _largest_batch(results)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("plan", no_wrap=True)
    for name in (
        "accuracy %\n(95 % interval)",
        "same as\nlocal %",
        "1 image\nms",
        f"{batch} images\nms",
        "of which: compute+\ncomm+staging+other",
        "bytes per image:\ninput+exchange",
    ):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(*_row(result, results[0], batch))
    output.print_table(table)


def _row(result: PlanResult, reference: PlanResult, batch: int) -> list[str]:
    low, high = result.interval
    whole = result.timing(batch)
    parts: tuple[float, ...] = ()
    if whole:
        parts = (whole.compute_s, whole.comm_s, whole.staging_s)
        parts = (*parts, max(0.0, whole.total_s - sum(parts)))
    return [
        result.plan,
        f"{result.accuracy * 100:.1f} ({low * 100:.1f}-{high * 100:.1f})",
        f"{result.agreement * 100:.1f}",
        _time(result, reference, 1),
        _time(result, reference, batch),
        "+".join(map(_short, parts)),
        f"{result.input_bytes:,.0f}+{result.exchanged_bytes:,.0f}",
    ]


def _short(part_s: float) -> str:
    """Return milliseconds, of three figures or a little more."""
    return f"{part_s * 1e3:.1f}" if part_s < 0.1 else f"{part_s * 1e3:.0f}"


def _time(result: PlanResult, reference: PlanResult, batch: int) -> str:
    timing, base = result.timing(batch), reference.timing(batch)
    if timing is None or base is None:
        return "-"
    return f"{timing.total_s * 1e3:.1f} ({base.total_s / timing.total_s:.2f}x)"


def _largest_batch(results: Sequence[PlanResult]) -> int:
    return max((timing.batch for timing in results[0].timings), default=1)


def _notes(report: dict[str, Any]) -> list[str]:
    cores = "a core of its own" if report["own_core_per_node"] else "cores shared with the others"
    notes = [
        f"{report['nodes']} node processes on this machine, one thread each, {cores}; link "
        f"{report['link']['shape']}, {output.EMULATED}",
        "times are medians per request, from the call to its answer; (1.00x) = as fast as one node",
        "of which: on the first node; comm is waiting inside the model, other is sending the input "
        "and waiting for answers, staging is copying between GPU and host (0 on CPUs)",
    ]
    if any(Plan.parse(plan["plan"]).means for plan in report["plans"]):
        notes.append(
            "C<n> = each node sends n means of similar positions, L<n> = n means of neighbouring "
            "ones; lag1 = means of the block before; f16 = sent as float16"
        )
    recovered = sum(plan["recovered"] for plan in report["plans"])
    if recovered:
        notes.append(f"{recovered} requests were finished by other nodes than planned; run again")
    return notes


def _findings(results: Sequence[PlanResult]) -> list[str]:
    """Say for each request size what was fastest, exactly and at all, or that one node was."""
    lines = []
    for batch in sorted({1, _largest_batch(results)}):
        timed = [(t.total_s, each) for each in results if (t := each.timing(batch))]
        exact = min((each for each in timed if each[1].exact), key=lambda each: each[0])
        best = min(timed, key=lambda each: each[0])
        text = f"{batch} {'image' if batch == 1 else 'images'} per request: "
        text += f"fastest exact plan {_speed(exact, results[0], batch)}"
        if best[1] is not exact[1]:
            text += f"; fastest of all {_speed(best, results[0], batch)}, {best[1].accuracy:.1%}"
            text += f" right instead of {results[0].accuracy:.1%}"
        lines.append(text)
    return lines


def _speed(timed: tuple[float, PlanResult], reference: PlanResult, batch: int) -> str:
    base = reference.timing(batch)
    assert base is not None
    if timed[1] is reference:
        return f"{reference.plan}: the helpers are not worth their link"
    return f"{timed[1].plan} ({base.total_s / timed[0]:.2f}x one node)"
