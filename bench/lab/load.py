"""What does a server built on prism answer in time over a real link, and how late?

    sudo python -m bench.lab.load [--model random:vit-base] [--loads 0.3 0.6 0.9 1.2 1.6 2.0]

Requests of one row arrive at random moments, at rates told as parts of what one board can answer.
The planner's choice, the first board only and every request split take turns in one run. The same
as bench/load.py, which needs no rights and emulates its link. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from bench.lab.devices import cluster_on
from bench.lab.options import add_lab_options, lab_of
from bench.lab.program import run_to_end, telling
from bench.lab.results import facts_of
from bench.load import add_load_options, checked, finish, measure

from prism.bench.console import wide_console


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    return run_to_end(lambda: run(options), "bench.lab.load")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_load_options(parser)
    add_lab_options(parser, nodes=2)
    return checked(parser, parser.parse_args(arguments))


def run(options: argparse.Namespace) -> None:
    """Measure what the options ask for; print a table, then one JSON line.

    Raises:
        ConfigError: an option has a wrong value, or this machine allows no lab.
    """
    torch.set_num_threads(1)
    with (
        TemporaryDirectory(prefix="prism-lab-") as scratch,
        lab_of(options) as lab,
        telling() as tell,
        cluster_on(lab, Path(scratch)) as cluster,
    ):
        levels, row_s = measure(cluster, options.model, options, tell)
        facts = facts_of(lab, cluster, options)
        title = f"{options.model} on {len(lab.boards)} boards, carried by {lab.kind}"
    finish(wide_console(), levels, row_s, options, title, facts)


if __name__ == "__main__":
    sys.exit(main())
