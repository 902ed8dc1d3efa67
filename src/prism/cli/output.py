"""How results look: tables and lines for people, one JSON document for programs.

Stdout carries the result and nothing else; progress goes to stderr and only to a terminal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from prism.record import RunRecord

_TABLE_WIDTH = 120
_SHOWN_VALUES = 6
EMULATED = "emulated on this machine, not a real network"


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(table: Table) -> None:
    """Print a table; in a file, where nobody says how wide it is, as wide as a wide terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = _TABLE_WIDTH
    console.print(table)


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Say on stderr what is being waited for."""
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def quiet_libraries(*, loading: bool = False) -> None:
    """Keep out what libraries tell developers: image backends, each retry of a download.

    Args:
        loading: keep out the bar of weights being loaded too, where `progress` says it.
    """
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    libraries: tuple[Any, ...] = (hub, logging)
    for library in libraries:
        library.set_verbosity_error()
    if loading:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def milliseconds(seconds: float) -> str:
    """Return a time for a person to read, such as `12.3 ms`."""
    return f"{seconds * 1e3:.1f} ms"


def vector_line(vector: Sequence[float]) -> str:
    """Return an embedding in one line: how long it is, and its first values for the eye."""
    first = " ".join(f"{value:+.4f}" for value in vector[:_SHOWN_VALUES])
    more = " ..." if len(vector) > _SHOWN_VALUES else ""
    return f"{len(vector)} values, norm {math.hypot(*vector):.4g}: {first}{more}"


def cost_lines(record: RunRecord) -> list[str]:
    """Return what a request cost, one line, and one more per node where there are several."""
    total = (
        f"{record.plan}: {milliseconds(record.total_s)} for {record.batch} "
        f"{'input' if record.batch == 1 else 'inputs'} of {record.length} tokens, {record.outcome}"
    )
    if not record.per_node:
        return [total, f"  {_parts(record)}"]
    nodes = {record.node: record, **record.per_node}
    width = max(map(len, nodes))
    return [total, *(f"  {name:<{width}}  {_parts(each)}" for name, each in nodes.items())]


def _parts(record: RunRecord) -> str:
    energy = ""
    if record.energy_j is not None:
        energy = f", {record.energy_j:.3f} J ({record.energy_scope}, {record.energy_quality})"
    return (
        f"compute {milliseconds(record.compute_s)}, comm {milliseconds(record.comm_s)}, "
        f"staging {milliseconds(record.staging_s)}, input {milliseconds(record.input_s)}, "
        f"output {milliseconds(record.output_s)}, {record.bytes_sent:,} bytes sent in "
        f"{record.messages} messages{energy}"
    )
