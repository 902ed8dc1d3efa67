"""`prism profile`: measure a model on a cluster, write its performance map."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prism.cli import output
from prism.cli.arguments import MODEL_HELP, check_at_least
from prism.cli.target import read_target
from prism.errors import ConfigError
from prism.version import VERSION

if TYPE_CHECKING:
    from prism.api.cluster import Cluster
    from prism.perfmap import PerformanceMap
    from prism.profiler import Settings

_PAPER_PASSES = 2880
_NODES = 2


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: prism profile digits --nodes 2 --threads 1 --link 100mbit,3ms")(
        profile
    )


def profile(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    out: Annotated[
        Path, typer.Option(help="The map to write; an unfinished profile is continued.")
    ] = Path("performance-map.json"),
    cluster: Annotated[Path | None, typer.Option(help="Real devices: cluster.yaml.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Local nodes; default 2.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads per local node.")] = None,
    link: Annotated[str | None, typer.Option(help="Emulated link: 100mbit,3ms.")] = None,
    energy: Annotated[str | None, typer.Option(help="Meter of local nodes; default auto.")] = None,
    dtype: Annotated[str, typer.Option(help="Dtype of the weights.")] = "float32",
    batch: Annotated[
        list[int] | None, typer.Option(help="A batch size to measure; repeatable.")
    ] = None,
    segments: Annotated[
        list[int] | None, typer.Option(help="Means per partition to measure; repeatable.")
    ] = None,
    passes: Annotated[int, typer.Option(help="About how many forward passes.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure MODEL on a cluster and write the performance map that plans are chosen from."""
    from prism.profiler import Settings

    check_at_least(1, {"--passes": passes})
    target = read_target(
        cluster, needed=_NODES, nodes=nodes, threads=threads, link=link, energy=energy
    )
    target = replace(target, needed=len(target.names))  # a map is made of all of them
    _check_place(out)
    default = Settings()
    settings = Settings(
        batches=tuple(batch or default.batches),
        segments=tuple(segments or default.segments),
        passes=passes,
    )
    _check_model(model)
    with output.progress(f"opening {target}"):
        opened = target.open()
    with opened as live:
        perf = _profile(live, model, dtype, settings, out)
    if as_json:
        output.print_json(_summary(perf, out))
    else:
        _print(perf, out)


def _check_place(out: Path) -> None:
    """Refuse a place where no map can be written, before minutes are spent on one."""
    if out.is_dir():
        raise ConfigError(f"--out {out} is a directory; name a file in it")
    if not os.access(out.parent, os.W_OK):
        state = "cannot be written to" if out.parent.is_dir() else "is no directory"
        raise ConfigError(f"--out {out}: {out.parent} {state}; choose another place")


def _check_model(source: str) -> None:
    from prism.models.load import describe

    output.quiet_libraries()
    describe(source)


def _profile(
    live: Cluster, source: str, dtype: str, settings: Settings, out: Path
) -> PerformanceMap:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from prism.api.profiling import ProfiledModel
    from prism.profiler import Profiler, Progress

    with output.progress(f"loading {source}"):
        model = live.load(source, dtype)
    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("profile")

        def tell(progress: Progress) -> None:
            left = "" if progress.left_s is None else f", {progress.left_s:.0f} s left"
            bar.update(
                task,
                total=progress.total,
                completed=progress.done,
                description=f"{progress.doing}{left}",
            )

        bench = ProfiledModel(live, model)
        return Profiler(bench, settings, out, tell, VERSION).run()


def _summary(perf: PerformanceMap, out: Path) -> dict[str, Any]:
    errors = [each.error for each in perf.held_out]
    return {
        "map": str(out),
        "passes": perf.passes,
        "paper_passes": _PAPER_PASSES,
        "seconds": perf.seconds_spent,
        "link": {
            "bandwidth_bps": perf.link.bandwidth_bps,
            "latency_s": perf.link.latency_s,
            "fixed_s": perf.link.fixed_s,
            "shared": perf.link.shared,
        },
        "energy": perf.energy_scope or None,
        "held_out_errors": errors,
        "measurements": [entry.to_dict() for entry in perf.measurements],
    }


def _print(perf: PerformanceMap, out: Path) -> None:
    from statistics import median

    from rich.table import Table

    table = Table(title=f"median ms per request, {', '.join(node.name for node in perf.nodes)}")
    for column in ("plan", "B", "length", "total", "compute", "staging", "comm", "input", "output"):
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=True)
    for entry in perf.measurements:
        parts = (entry.compute_s, entry.staging_s, entry.comm_s, entry.input_s, entry.output_s)
        spread = 0.0 if entry.total_s.spread is None else entry.total_s.spread
        table.add_row(
            entry.plan,
            str(entry.batch),
            str(entry.length),
            f"{1e3 * entry.total_s.median:.1f} ± {1e3 * spread / 2:.1f}",
            *(f"{1e3 * part.median:.1f}" for part in parts),
        )
    output.print_table(table)
    link = perf.link
    if len(perf.nodes) > 1:
        shape = "one medium for all" if link.shared else "a port each"
        print(
            f"link: {link.bandwidth_bps / 1e6:.1f} Mbit/s, {1e3 * (link.latency_s or 0):.2f} ms "
            f"one way, {shape}; an empty exchange takes {1e3 * link.fixed_s:.2f} ms"
        )
    print(f"energy: {perf.energy_scope or 'nobody measured'}")
    if perf.held_out:
        typical = median(abs(each.error) for each in perf.held_out)
        print(f"prediction error at {len(perf.held_out)} held-out points: median {typical:.1%}")
    print(
        f"{perf.passes} forward passes in {perf.seconds_spent:.0f} s "
        f"(the paper's sweep: {_PAPER_PASSES}); wrote {out}"
    )
