"""`prism keygen` and `prism node`."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prism.node.program import NodeConfig


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
        typer.Option(
            "--coordinator",
            "--head",
            help="Where the coordinator listens, tcp://HOST:PORT: host and port of cluster.yaml.",
        ),
    ],
    name: Annotated[str, typer.Option(help="This node's name, as cluster.yaml lists it.")],
    secret: Annotated[
        Path, typer.Option(help="The cluster secret, copied from the coordinator's device.")
    ] = Path("cluster.key"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Compute threads.", min=1)] = None,
    cores: Annotated[str, typer.Option(help="Cores to run on, such as 0,1.")] = "",
    energy: Annotated[
        str, typer.Option(help="Meter: auto, none, ina3221, nvml, rapl, pi5, model:..., replay:...")
    ] = "auto",
    backend: Annotated[
        str,
        typer.Option(help="What runs models: eager, packed, compile, openvino, onnxruntime, auto."),
    ] = "eager",
    emulate_half: Annotated[
        bool, typer.Option(help="Allow half precision on a processor that only emulates it.")
    ] = False,
    link: Annotated[str, typer.Option(help="Emulated link (local clusters).", hidden=True)] = "",
    medium: Annotated[Path | None, typer.Option(hidden=True)] = None,
    places: Annotated[str, typer.Option(hidden=True)] = "",
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    scratch: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Let this device serve a cluster as a node: start it here and leave it running.

    It joins the coordinator at that address as soon as one is there, and the next one after that.
    Ctrl-C or SIGTERM ends it with code 0; it ends with 1 when the coordinator refuses it, and with
    2 when an option is wrong.
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

    from prism.node.program import Node, NodeConfig

    if threads is not None:
        torch.set_num_threads(threads)
    config = NodeConfig(
        name=name,
        coordinator=coordinator,
        secret=key,
        device=device,
        cores=pins,
        energy=energy,
        outlives_coordinator=parent is None,
        backend=backend,
        emulate_half=emulate_half,
    )
    if medium is not None:
        config = _emulated(config, link, medium, places.split(","))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("prism").setLevel(logging.INFO)
    running = Node(config)
    lifetime.say_farewell_with(running.stop)
    print(f"{name}: {running.run()}")
    leave(0)


def _emulated(config: NodeConfig, text: str, medium: Path, names: list[str]) -> NodeConfig:
    """Return `config` with both planes over an emulated link, if the text is one."""
    from prism.emulation.place import EmulatedLink

    link = EmulatedLink.open(text, medium, names)
    if link is None:
        return config
    return replace(
        config, delivery=link.delivery(config.name), factory=link.factory(config.factory)
    )


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
