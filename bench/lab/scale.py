"""How far do more nodes go? One to four boards that each have the same share of a core.

    sudo python -m bench.lab.scale [--cpu 0.4] [--tokens 197 1025] [--nodes 4] [--rounds 9]

As `bench.lab.forward`, whose options it takes, with plans on 2 to P boards in turn with one. The
boards share this machine's cores, so their shares together must leave room for the rest.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from bench.lab.forward import add_options, run
from bench.lab.options import read_shares
from bench.lab.program import run_to_end
from bench.lab.shape import MOST

from prism.errors import ConfigError

SHARE = "0.4"
FORMS = ("seq:{}:C10:f16", "seq:{}:C10:lag1:f16")
# Of the cores; the rest is for the forwarder and the coordinator.
_MOST_OF_CORES = 0.9


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_options(parser, nodes=MOST, batch=(1,), tokens=(197, 1025), plans=())
    parser.set_defaults(cpu=SHARE, rounds=9)
    return run_to_end(lambda: scale(parser.parse_args(arguments)), "bench.lab.scale")


def scale(options: argparse.Namespace) -> None:
    """Measure; print a table, then one JSON line.

    Raises:
        ConfigError: the boards would have more of this machine than there is of it.
    """
    shares, cores = read_shares(options.cpu), len(os.sched_getaffinity(0))
    total = sum(shares) * (options.nodes if len(shares) == 1 else 1)
    if not shares or total > _MOST_OF_CORES * cores:
        raise ConfigError(
            f"{options.nodes} boards with --cpu {options.cpu or 'all'} need {total or 'all'} of "
            f"this machine's {cores} cores; give them {_MOST_OF_CORES * cores:g} together at most"
        )
    if not options.plans:
        sizes = range(2, options.nodes + 1)
        options.plans = [form.format(size) for size in sizes for form in FORMS]
    run(options, "scale")


if __name__ == "__main__":
    sys.exit(main())
