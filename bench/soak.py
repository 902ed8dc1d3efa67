"""Is anything lost or left behind when a helper dies again and again?

    python bench/soak.py [--requests 3000] [--kills 60] [--seed 0] [--json]

Two threads send requests to the digits model on two nodes, under every exact plan, while one node
is killed (SIGKILL) at random moments and started again by hand. Goes on until both numbers are
reached. Every answer is compared with plain transformers'. Counts what the calling process holds:
file descriptors, threads, memory. Prints a table, then one JSON line; exits 1 if an answer was
wrong or lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import prism
from prism.bench.plain import plain_forward

MODEL = "digits"
HELPER = "node1"
NODES = ("node0", HELPER)
PLANS = ("local", "seq:2:full", "batch:2", f"local@{HELPER}")  # all exact
THREADS = 2
ROWS = 2
DIFFERENT = 8  # requests that differ
ATOL = 1e-4
LONGEST_LIFE_S = 2.0  # of a helper that is back
RETURN_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Held:
    """What this process holds at one moment."""

    when: str
    requests: int
    kills: int
    descriptors: int
    threads: int
    memory_mib: float


class Traffic:
    """Requests from several threads, checked, until told to stop."""

    def __init__(self, model: prism.DistributedModel) -> None:
        self.outcomes: Counter[str] = Counter()  # right, wrong, or lost and why
        self._model = model
        self._lock = threading.Lock()
        self._stop = threading.Event()
        generator = torch.Generator().manual_seed(0)
        config = model.info.config
        shape = (ROWS, config.num_channels, config.image_size, config.image_size)
        plain = plain_forward(MODEL)
        self._pixels = [
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
            for _ in range(DIFFERENT)
        ]
        self._expected = [plain({"pixel_values": pixels}).logits for pixels in self._pixels]
        self._threads = [threading.Thread(target=self._send) for _ in range(THREADS)]

    @property
    def answered(self) -> int:
        """How many requests came back, in whatever way."""
        with self._lock:
            return self.outcomes.total()

    @property
    def failed(self) -> int:
        """How many answers were wrong or lost."""
        return self.answered - self.outcomes["right"]

    def ask(self, number: int) -> None:
        """Send one request and note what came of it."""
        case, plan = number % DIFFERENT, PLANS[number % len(PLANS)]
        try:
            output = self._model(plan=plan, pixel_values=self._pixels[case])
            close = torch.allclose(output.logits, self._expected[case], atol=ATOL)
            outcome = "right" if close else f"wrong: {plan}"
        except Exception as error:  # whatever it is, the answer is lost, and that is counted
            outcome = f"lost: {plan}: {error}"
        with self._lock:
            self.outcomes[outcome] += 1

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        number = threading.get_ident() % len(PLANS)
        while not self._stop.is_set():
            self.ask(number)
            number += 1


class Helper:
    """A node process of a local cluster that is killed and started again by hand."""

    def __init__(self, cluster: prism.Cluster) -> None:
        self._cluster = cluster
        place = Path(f"/proc/{cluster.pid(HELPER)}")
        self._command = place.joinpath("cmdline").read_bytes().split(b"\0")[:-1]
        pairs = place.joinpath("environ").read_bytes().split(b"\0")[:-1]
        self._environment = dict(pair.split(b"=", 1) for pair in pairs)
        self._process: subprocess.Popen[bytes] | None = None

    def kill_and_start_again(self) -> None:
        """Return when the cluster counts the new process as alive."""
        old = self._cluster.pid(HELPER)
        os.kill(old, signal.SIGKILL)
        self.wait()
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline_s = time.monotonic() + RETURN_TIMEOUT_S
        while self._cluster.pid(HELPER) == old or HELPER not in self._cluster.nodes:
            if time.monotonic() > deadline_s:
                sys.exit(f"{HELPER} did not come back within {RETURN_TIMEOUT_S:g} s")
            time.sleep(0.01)

    def wait(self) -> None:
        """Wait until the process that was started here has ended."""
        if self._process is not None:
            self._process.wait()


def main() -> None:
    options = parse()
    held: list[Held] = []
    started_s = time.monotonic()
    with (
        prism.local_cluster(nodes=len(NODES), threads=1) as cluster,
        Console(stderr=True).status("loading") as status,
    ):
        traffic, helper = Traffic(cluster.load(MODEL)), Helper(cluster)
        for number in range(len(PLANS)):
            traffic.ask(number)  # connects, warms up
        try:
            soak(options, traffic, helper, held, status.update)
        finally:
            traffic.stop()
        held.append(holding("after", traffic, options.kills))
    helper.wait()
    seconds = time.monotonic() - started_s
    if not options.json:
        show(held, traffic, seconds)
    print(json.dumps(report(held, traffic, options, seconds)))
    sys.exit(bool(traffic.failed))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=3000, help="at least so many")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    if min(options.requests, options.kills) < 1:
        parser.error("--requests and --kills must be at least 1")
    return options


def soak(
    options: argparse.Namespace,
    traffic: Traffic,
    helper: Helper,
    held: list[Held],
    tell: Any,
) -> None:
    """Kill at random moments while requests run, until there were enough of both."""
    moments = random.Random(options.seed)
    quarters = {round(options.kills * part / 4): f"{part}/4" for part in (1, 2, 3)}
    held.append(holding("before", traffic, 0))
    traffic.start()
    for kills in range(1, options.kills + 1):
        time.sleep(moments.uniform(0, LONGEST_LIFE_S))
        helper.kill_and_start_again()
        tell(f"{traffic.answered} requests, {kills} kills, {traffic.failed} wrong or lost")
        if kills in quarters:
            held.append(holding(quarters[kills], traffic, kills))
    while traffic.answered < options.requests:
        time.sleep(0.05)


def holding(when: str, traffic: Traffic, kills: int) -> Held:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Held(
        when,
        traffic.answered,
        kills,
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=len(os.listdir("/proc/self/task")),
        memory_mib=round(resident / 2**20, 1),
    )


def show(held: list[Held], traffic: Traffic, seconds: float) -> None:
    table = Table(title=f"what the calling process held, {seconds:.0f} s in all")
    for column in ("", "requests", "kills", "descriptors", "threads", "memory MiB"):
        table.add_column(column, justify="right" if column else "left")
    for each in held:
        table.add_row(*map(str, asdict(each).values()))
    Console().print(table)
    for outcome, count in traffic.outcomes.most_common():
        print(f"{count:6} {outcome}")


def report(
    held: list[Held], traffic: Traffic, options: argparse.Namespace, seconds: float
) -> dict[str, Any]:
    return {
        "bench": "soak",
        "model": MODEL,
        "plans": list(PLANS),
        "submitting_threads": THREADS,
        "requests": traffic.answered,
        "kills": options.kills,
        "failed": traffic.failed,
        "outcomes": dict(traffic.outcomes),
        "seconds": round(seconds, 1),
        "held": [asdict(each) for each in held],
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
