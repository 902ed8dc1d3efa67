"""`prism profile`: measure a model on a cluster, write its performance map."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism.cli import output, profile_view
from prism.cli.arguments import MODEL_HELP, check_at_least
from prism.cli.durations import read_seconds
from prism.cli.target import read_target
from prism.cli.ticker import waiting
from prism.errors import ConfigError
from prism.plan import PRECISIONS, Precision
from prism.version import VERSION

if TYPE_CHECKING:
    from prism.api.cluster import Cluster
    from prism.perfmap import PerformanceMap
    from prism.profiler import Settings

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
    budget: Annotated[
        str, typer.Option(help="Time it may take: 90s, 5m; slow points are predicted. Or none.")
    ] = "5m",
    batch: Annotated[
        list[int] | None,
        typer.Option(help="A batch size to measure; repeatable; default chosen for the model."),
    ] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(help="Positions per text to measure; repeatable; default up to 512."),
    ] = None,
    segments: Annotated[
        list[int] | None, typer.Option(help="Means per partition to measure; repeatable.")
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(help="Of the computation: float32,int8; default all that nodes can."),
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
        batches=tuple(batch) if batch else None,
        segments=tuple(segments or default.segments),
        passes=passes,
        lengths=tuple(length) if length else None,
        budget_s=_read_budget(budget),
        precisions=_read_precisions(precisions),
    )
    _check_model(model)
    with waiting(f"opening {target}"):
        opened = target.open()
    with opened as live:
        perf = _profile(live, model, dtype, settings, out)
    if as_json:
        output.print_json(profile_view.summary(perf, out))
    else:
        profile_view.show(perf, out)


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
    from prism.api.profiling import ProfiledModel
    from prism.profiler import Profiler

    with waiting(f"loading {source}"):
        bench = ProfiledModel(live, live.load(source, dtype), settings.precisions)
    for precision, reason in bench.refused.items():
        print(f"{precision} is left out: {reason}", file=sys.stderr)
    with profile_view.shown_progress() as tell:
        return Profiler(bench, settings, out, tell, VERSION).run()


def _read_precisions(text: str | None) -> tuple[Precision, ...] | None:
    """Return the precisions of `--precisions`, float32 always among them; None if not given."""
    if text is None:
        return None
    named = text.replace(",", " ").split()
    unknown = [each for each in named if each not in PRECISIONS]
    if unknown or not named:
        raise ConfigError(
            f"--precisions {text!r} is not understood; give some of {', '.join(PRECISIONS)}, "
            f"separated by commas"
        )
    return tuple(each for each in PRECISIONS if each in named or each == "float32")


def _read_budget(text: str) -> float | None:
    return None if text.strip() == "none" else read_seconds("--budget", text)
