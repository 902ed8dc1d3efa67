"""`prism keygen` and `prism node`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(keygen)
    app.command()(node)


def keygen(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("cluster.key"),
) -> None:
    """Make a cluster secret; copy it to every node."""
    from prism.control.keys import generate, save

    save(generate(), path)
    print(f"wrote {path}; copy it to every node, and keep it secret")


def node(
    coordinator: Annotated[
        str,
        typer.Option("--coordinator", "--head", help="The coordinator's address, tcp://HOST:PORT."),
    ],
    name: Annotated[str, typer.Option(help="This node's name, unique in the cluster.")],
    secret: Annotated[Path, typer.Option(help="The cluster secret.")] = Path("cluster.key"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Compute threads.", min=1)] = None,
    cores: Annotated[str, typer.Option(help="Cores to run on, such as 0,1.")] = "",
    energy: Annotated[
        str, typer.Option(help="Meter: auto, none, ina3221, nvml, rapl, pi5, model:..., replay:...")
    ] = "auto",
    link: Annotated[str, typer.Option(help="Emulated link (local clusters).", hidden=True)] = "",
    medium: Annotated[Path | None, typer.Option(hidden=True)] = None,
    places: Annotated[str, typer.Option(hidden=True)] = "",
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    scratch: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve as a node of the cluster whose coordinator is there, and of the next one there.

    Ends with Ctrl-C or SIGTERM.
    """
    from prism.control.keys import read
    from prism.control.messages import host_and_port
    from prism.errors import ConfigError
    from prism.launch.lifetime import Lifetime, leave
    from prism.plan import is_node_name

    if not is_node_name(name):
        raise ConfigError(
            f"{name!r} cannot name a node; use letters, digits and inner dots or dashes"
        )
    # What is wrong with the arguments is said before the slow imports.
    host_and_port(coordinator)
    key = read(secret)
    # Both before torch starts its threads, which inherit the cores and the blocked signals.
    pins = _pin(cores)
    lifetime = Lifetime(parent, scratch)

    import torch

    from prism.emulation.place import EmulatedLink
    from prism.node.program import Node, NodeConfig

    if threads is not None:
        torch.set_num_threads(threads)
    names = places.split(",") if places else []
    config = NodeConfig(
        name=name,
        coordinator=coordinator,
        secret=key,
        device=device,
        cores=pins,
        link=EmulatedLink.open(link, medium, names) if medium else None,
        home=names[0] if names else "",
        energy=energy,
        outlives_coordinator=parent is None,
    )
    logging.basicConfig(format="%(message)s")
    logging.getLogger("prism").setLevel(logging.INFO)
    running = Node(config)
    lifetime.say_farewell_with(running.stop)
    print(f"{name}: {running.run()}")
    leave(0)


def _pin(cores: str) -> tuple[int, ...]:
    from prism.errors import ConfigError

    if not cores:
        return ()
    try:
        pins = tuple(int(core) for core in cores.split(","))
        os.sched_setaffinity(0, pins)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"cores must be numbers of this machine's cores, not {cores!r}"
        ) from error
    return pins
