"""`prism serve`: models behind HTTP, until Ctrl-C or SIGTERM.

What can be wrong with the arguments is found before a node starts, the port included.
"""

from __future__ import annotations

import ipaddress
import logging
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from prism.cli import output
from prism.cli.arguments import MODEL_HELP, POINT_ESTIMATE_HELP, check_at_least
from prism.cli.durations import read_seconds
from prism.cli.target import read_target
from prism.cli.ticker import waiting
from prism.errors import ConfigError, ModelError
from prism.plan import WIRE_BYTES, Metric, Objective

if TYPE_CHECKING:
    import socket

    from prism.perfmap import PerformanceMap
    from prism.server.served import Models

_NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
_MOST_PORT = 65_535
_MIB = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: prism serve digits --local-nodes 2 --link 100mbit,3ms")(serve)


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help=f"{MODEL_HELP} NAME=MODEL names it.")
    ],
    cluster: Annotated[Path | None, typer.Option(help="Real devices: cluster.yaml.")] = None,
    nodes: Annotated[
        int | None, typer.Option("--local-nodes", "--nodes", help="Nodes on this machine.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads per local node.")] = None,
    link: Annotated[str | None, typer.Option(help="Emulated link: 100mbit,3ms.")] = None,
    maps: Annotated[
        list[Path] | None,
        typer.Option("--map", help="Performance map, so that plans are chosen; one per model."),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="What plans are chosen for: latency, energy or edp.")
    ] = "latency",
    max_accuracy_drop: Annotated[
        float, typer.Option(help="0.02 = 2 points; 0 = exact plans only.")
    ] = 0.0,
    point_estimate: Annotated[
        bool, typer.Option("--point-estimate", help=POINT_ESTIMATE_HELP)
    ] = False,
    host: Annotated[str, typer.Option(help="Name or address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 = any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="API keys, one a line; requests must bring one.")
    ] = None,
    drain: Annotated[
        str, typer.Option(help="Longest time to answer what was accepted, once told to stop.")
    ] = "30s",
    max_body: Annotated[int, typer.Option(help="Longest request, in MiB.")] = 64,
    max_batch: Annotated[int, typer.Option(help="Most rows that requests are joined to.")] = 32,
    max_queue: Annotated[int, typer.Option(help="Most rows that wait for a model.")] = 256,
    dtype: Annotated[str, typer.Option(help="Dtype of the weights.")] = "float32",
) -> None:
    """Answer HTTP requests with MODELs: Open Inference Protocol, embeddings, classification.

    It is ready as soon as one node can answer. Ctrl-C or SIGTERM lets no more in, answers what was
    accepted and ends with code 0.
    """
    check_at_least(1, {"--max-body": max_body, "--max-batch": max_batch, "--max-queue": max_queue})
    goal = Objective(cast(Metric, objective), max_accuracy_drop, point_estimate)
    drain_s = read_seconds("--drain", drain)
    _check_cheaply(port, dtype)
    performance = _read_maps(maps or ())
    # Real devices come and go; whoever is there will do.
    needed = 1 if cluster else max((len(perf.nodes) for perf in performance), default=1)
    target = read_target(cluster, needed=needed, nodes=nodes, threads=threads, link=link)

    from prism.server.keys import ApiKeys
    from prism.server.lifecycle import bind, terminable
    from prism.server.loading import load_models
    from prism.server.served import named_sources
    from prism.server.serving import serve as serve_models
    from prism.server.settings import Settings

    settings = Settings(
        objective=goal,
        keys=ApiKeys() if api_key_file is None else ApiKeys.read(api_key_file),
        most_body_bytes=max_body * _MIB,
        most_rows=max_batch,
        queue_rows=max_queue,
        drain_s=drain_s,
    )
    sources = named_sources(models)
    logging.basicConfig(format="%(message)s")
    output.quiet_libraries(loading=True)
    with bind(host, port) as bound, terminable():
        _warn_of_strangers(bound, keys=bool(settings.keys))
        with waiting(f"opening {target}"):
            opened = target.open()
        with opened as live:
            served = load_models(live, sources, performance, goal, dtype, waiting)
            serve_models(served, settings, bound, lambda: _say_started(served, bound))
    print("every accepted request was answered; stopped", file=sys.stderr)


def _check_cheaply(port: int, dtype: str) -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"prism serve needs {', '.join(missing)}: pip install 'prism-edge[serve]'"
        )
    if not 0 <= port <= _MOST_PORT:
        raise ConfigError(f"--port must lie in 0..{_MOST_PORT}, not {port}")
    if dtype not in WIRE_BYTES:
        raise ModelError(f"unknown dtype {dtype!r}; use {', '.join(WIRE_BYTES)}")


def _read_maps(paths: Sequence[Path]) -> tuple[PerformanceMap, ...]:
    from prism.perfmap import PerformanceMap

    return tuple(PerformanceMap.load(path) for path in paths)


def _warn_of_strangers(bound: socket.socket, *, keys: bool) -> None:
    host = bound.getsockname()[0]
    if not keys and not ipaddress.ip_address(host).is_loopback:
        print(
            f"prism: whoever reaches {host} may use this server; --api-key-file asks for a key",
            file=sys.stderr,
        )


def _say_started(served: Models, bound: socket.socket) -> None:
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {', '.join(served)} at http://{shown}:{port}; Ctrl-C stops", flush=True)
