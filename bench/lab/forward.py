"""What each plan costs over a lab's link, beside plain transformers, a plain loop and the bound.

    sudo python -m bench.lab.forward [--model random:vit-base] [--batch 1 8] [--tokens 197 577]
        [--rate 100mbit] [--delay 3ms] [--rounds 15] [--plans seq:2:C10:f16 ...]

Contenders take turns within each round, all on the core of their board, so that whatever else the
machine does hits all of them alike; speed-ups are medians of the ratios within a round, with their
quartiles. Beside each plan stands how much of its bound it reaches: what plain transformers take,
with no network, for one node's part of the work. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from bench.lab.contenders import PARALLEL, gather, plain_parallel
from bench.lab.devices import cluster_on
from bench.lab.lab import Lab
from bench.lab.options import add_lab_options, lab_of
from bench.lab.program import Tell, run_to_end, telling
from bench.lab.results import facts_of, rows_of, show
from bench.lab.sized import sized

import prism
from prism.bench.contenders import alternate
from prism.errors import ConfigError
from prism.models.load import LoadedModel, load
from prism.models.synthetic import synthetic_inputs
from prism.plan import Plan

PLANS = (
    *("local", "batch:2", "seq:2:full"),
    *("seq:2:C10:f16", "seq:2:C10:lag1:f16", "seq:2:L10:f16", "seq:2:L10:lag1:f16"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = add_options(argparse.ArgumentParser(description=__doc__.split("\n")[0]))
    return run_to_end(lambda: run(options.parse_args(arguments), "forward"), "bench.lab.forward")


def add_options(
    parser: argparse.ArgumentParser,
    *,
    nodes: int = 2,
    batch: Sequence[int] = (1, 8),
    tokens: Sequence[int] = (),
    plans: Sequence[str] = PLANS,
) -> argparse.ArgumentParser:
    """Add what a comparison over a lab needs to know, with these defaults."""
    parser.add_argument("--model", default="random:vit-base")
    parser.add_argument("--batch", type=int, nargs="+", default=list(batch))
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=list(tokens), help="per sample; 197, 577, 1025"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--plans", nargs="+", default=list(plans))
    add_lab_options(parser, nodes=nodes)
    return parser


def run(options: argparse.Namespace, bench: str) -> None:
    """Measure what the options ask for; print a table, then one JSON line.

    Args:
        options: as `add_options` has them.
        bench: name of the benchmark.

    Raises:
        ConfigError: an option has a wrong value, or this machine allows no lab.
    """
    check(options)
    torch.set_num_threads(1)
    rows = []
    with (
        TemporaryDirectory(prefix="prism-lab-") as scratch,
        lab_of(options) as lab,
        telling() as tell,
        cluster_on(lab, Path(scratch)) as cluster,
    ):
        for tokens in options.tokens or [None]:
            source = sized(options.model, tokens, Path(scratch))
            rows += measure(lab, cluster, source, tokens, options, tell)
        figures = {"bench": bench, **facts_of(lab, cluster, options), "rows": rows}
    show(figures)
    print(json.dumps(figures))


def check(options: argparse.Namespace) -> None:
    """Find what is wrong with the options before anything is started.

    Raises:
        ConfigError: names it.
    """
    for name, values in (("batch", options.batch), ("rounds", [options.rounds])):
        if min(values) < 1:
            raise ConfigError(f"--{name} must be at least 1, not {min(values)}")
    for text in options.plans:
        if Plan.parse(text).size > options.nodes:
            raise ConfigError(f"{text} needs more than {options.nodes} nodes; give --nodes")


def measure(
    lab: Lab,
    cluster: prism.Cluster,
    source: str,
    tokens: int | None,
    options: argparse.Namespace,
    tell: Tell,
) -> list[dict[str, Any]]:
    """Let all contenders take turns with one model, at every batch size."""
    tell(f"loading {source}")
    model, loaded = cluster.load(source), load(source)
    length = tokens or model.info.shape.max_length
    rows = []
    with contextlib.ExitStack() as leaving:
        leaving.callback(model.unload)
        parallel = None
        if max(options.batch) > 1 and splits_plainly(loaded, options.nodes):
            parallel = leaving.enter_context(plain_parallel(lab, loaded))
        for batch in options.batch:
            contenders = gather(model, loaded, options.plans, batch, length, parallel)
            if parallel is not None and PARALLEL in contenders.runs:
                inputs = synthetic_inputs(model.info, batch, length)
                parallel.announce(inputs["pixel_values"], options.rounds + 1)
            say = _counter(tell, length, batch, options.rounds)
            done = alternate(contenders.runs, options.rounds, say)
            rows += rows_of(contenders, done, batch, length)
    return rows


def splits_plainly(loaded: LoadedModel, nodes: int) -> bool:
    """Whether the plain loop, which is for images, classes and two machines, takes part."""
    is_classifier = type(loaded.model).__name__.endswith("ForImageClassification")
    return nodes == 2 and is_classifier and loaded.info.normalisation is not None


def _counter(tell: Tell, length: int, batch: int, rounds: int) -> Callable[[int], None]:
    """Return what says which round begins."""
    return lambda number: tell(f"{length} tokens, batch {batch}: round {number} of {rounds}")


if __name__ == "__main__":
    sys.exit(main())
