"""What the lab itself costs: processor time per Mbit/s, and how much later packets come than due.

A forwarder runs on the cores that nodes compute on, so what it takes they lack; and a packet that
it delivers late looks like a longer delay of the link. Its processor time holds the receiver's
share of TCP, too: the kernel does that work while a packet is handed over.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

from bench.lab.forwarder import PYTHON, C, compiler
from bench.lab.lab import Lab
from bench.lab.media import AUTO, CHOICES, NETEM
from bench.lab.netem import has_netem
from bench.lab.shape import Link
from rich.console import Console
from rich.table import Table

from prism.bench.console import wide_console
from prism.errors import ConfigError

_PORT = 5001
_CHUNK_BYTES = 64 * 1024
_TRIPS = 200
_FAST = Link(rate_bps=1e10, delay_s=0.0)  # so fast that what a trip takes is the lab's own
_TIMEOUT_S = 120.0


def add_cost_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rates", nargs="+", default=["20mbit", "100mbit", "500mbit"])
    parser.add_argument("--delay", default="3ms")
    parser.add_argument("--seconds", type=float, default=3.0, help="of transfer at each rate")
    parser.add_argument("--forwarder", default=AUTO, help=f"one of {', '.join(CHOICES)}; auto: all")
    parser.add_argument("--no-offload", action="store_true", help="without offload only")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")


def tell_cost(options: argparse.Namespace) -> None:
    """Measure what was asked for; print a table, then one JSON line."""
    if not options.seconds > 0:
        raise ConfigError(f"--seconds must be above 0, not {options.seconds:g}")
    links = [Link().changed(rate, options.delay) for rate in options.rates]
    kinds = available() if options.forwarder == AUTO else [options.forwarder]
    rows = []
    with Console(stderr=True).status("") as progress:
        for kind, offload in itertools.product(kinds, (False, True)):
            if offload and (options.no_offload or kind == NETEM):
                continue
            with Lab(2, _FAST, forwarder=kind, offload=offload) as lab:
                progress.update(f"{kind}: {_TRIPS} round trips")
                added_s = round_trip_s(lab) / 2
                for link in links:
                    progress.update(f"{kind}: {link}")
                    lab.set(link)
                    rows.append({"kind": kind, "added_us": round(1e6 * added_s, 1)})
                    rows[-1] |= cost_at(lab, options.seconds)
    if not options.json:
        show(rows)
    print(json.dumps({"bench": "lab cost", "cores": os.cpu_count(), "rows": rows}))


def available() -> list[str]:
    """Return every kind of medium this machine has."""
    return [*([NETEM] if has_netem() else []), *([C] if compiler() else []), PYTHON]


def cost_at(lab: Lab, seconds: float) -> dict[str, Any]:
    """Send for so long from the first board to the second; return what that cost.

    The processor time of netem is the kernel's, which books it nowhere by itself.
    """
    before = lab.carried
    reached_bps, took_s = transfer(lab, seconds)
    after = lab.carried
    row = {"link": str(lab.link), "goodput_mbps": round(reached_bps / 1e6, 2)}
    if before is None or after is None:
        unknown = ("offload", "cpu_share", "cpu_per_mbps", "late_us", "dropped")
        return row | dict.fromkeys(unknown)
    share = (after.cpu_s - before.cpu_s) / took_s
    late_s = (after.late_s - before.late_s) / max(1, after.packets - before.packets)
    return {
        **row,
        "offload": after.offload,
        "cpu_share": round(share, 4),
        "cpu_per_mbps": round(share / (reached_bps / 1e6), 6),
        "late_us": round(1e6 * late_s, 1),
        "dropped": after.dropped - before.dropped,
    }


@contextlib.contextmanager
def connection(lab: Lab) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Open a TCP connection from the first board to the second; yield both ends."""
    sender, receiver = lab.boards[:2]
    with lab.network(receiver.name):
        listener = socket.create_server((receiver.address, _PORT))
    listener.settimeout(_TIMEOUT_S)
    with listener, lab.network(sender.name):
        near = socket.create_connection((receiver.address, _PORT), timeout=_TIMEOUT_S)
        with near, listener.accept()[0] as far:
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.settimeout(_TIMEOUT_S)
            yield near, far


def transfer(lab: Lab, seconds: float) -> tuple[float, float]:
    """Send as fast as the link takes it; return bits per second received, and how long it took."""
    with connection(lab) as (near, far):
        started_s = time.monotonic()

        def send() -> None:
            while time.monotonic() - started_s < seconds:
                near.sendall(bytes(_CHUNK_BYTES))
            near.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        received = 0
        while chunk := far.recv(_CHUNK_BYTES):
            received += len(chunk)
        took_s = time.monotonic() - started_s
        sending.join()
    return 8 * received / took_s, took_s


def round_trip_s(lab: Lab, trips: int = _TRIPS) -> float:
    """Return the median time of one byte to the second board and back."""
    with connection(lab) as (near, far):

        def reflect() -> None:
            while byte := far.recv(1):
                far.sendall(byte)

        reflecting = threading.Thread(target=reflect)
        reflecting.start()
        trips_s = []
        for _ in range(trips):
            started_s = time.perf_counter()
            near.sendall(b"x")
            near.recv(1)
            trips_s.append(time.perf_counter() - started_s)
        near.shutdown(socket.SHUT_WR)
        reflecting.join()
    return statistics.median(trips_s)


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="the lab's own cost; a share of 1 is one core")
    for column in ("carried by", "link"):
        table.add_column(column, no_wrap=True)
    columns = {
        "offload": "offload",
        "goodput_mbps": "Mbit/s reached",
        "cpu_share": "CPU share",
        "cpu_per_mbps": "CPU share per Mbit/s",
        "late_us": "us late",
        "dropped": "dropped",
        "added_us": "one way on a link that does nothing, us",
    }
    for title in columns.values():
        table.add_column(title, justify="right")
    for row in rows:
        cells = ("-" if row[name] is None else str(row[name]) for name in columns)
        table.add_row(row["kind"], row["link"], *cells)
    wide_console(150).print(table)
