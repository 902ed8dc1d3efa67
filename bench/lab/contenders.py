"""What takes turns over a lab: prism's plans, plain transformers, a plain loop, and the bounds."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.lab.bound import Bound
from bench.lab.lab import Lab
from bench.lab.plain_parallel import PlainParallel

from prism.api.model import DistributedModel
from prism.bench.contenders import Run, requests
from prism.bench.plain import forward_of
from prism.models.load import LoadedModel
from prism.models.synthetic import synthetic_inputs
from prism.plan import Plan

PLAIN = "plain transformers"
PARALLEL = "plain data parallel"
LOCAL = "local"
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
_PORTS = itertools.count(7171)  # a fresh one for every group, since a port rests after use


@dataclass(slots=True)
class Contenders:
    """Everything that answers one and the same request.

    Attributes:
        runs: by name, in the order of the table.
        bounds: by name of a contender on several nodes, its bound, whose name is a contender, too.
    """

    runs: dict[str, Run]
    bounds: dict[str, Bound] = field(default_factory=dict)


def gather(
    model: DistributedModel,
    loaded: LoadedModel,
    plans: Sequence[str],
    batch: int,
    length: int,
    parallel: PlainParallel | None,
) -> Contenders:
    """Return the contenders for requests of one size; plans that cannot serve it are left out.

    Args:
        model: on the boards.
        loaded: the same model in this process.
        plans: as text.
        batch: samples per request.
        length: tokens per sample.
        parallel: the plain loop over two machines, if there is one.
    """
    inputs = synthetic_inputs(model.info, batch, length)
    found = Contenders({PLAIN: _calling(forward_of(loaded), inputs)})
    for text in dict.fromkeys((LOCAL, *plans)):
        plan = Plan.parse(text)
        if plan.least_batch <= batch and plan.least_length <= length:
            found.runs[text] = requests(model, text, inputs)
            if plan.size > 1:
                found.bounds[text] = Bound(plan.size, plan.exchanges)
    if parallel is not None and batch > 1:
        found.runs[PARALLEL] = _calling(parallel, inputs["pixel_values"])
        found.bounds[PARALLEL] = Bound(parts=2, of_positions=False)
    for bound in dict.fromkeys(found.bounds.values()):
        found.runs[bound.name] = _calling(bound.forward(loaded, batch, length), inputs)
    return found


def _calling(forward: Callable[[Any], object], inputs: object) -> Run:
    """Return a contender that has no record."""

    def run() -> None:
        forward(inputs)

    return run


@contextlib.contextmanager
def plain_parallel(lab: Lab, loaded: LoadedModel) -> Iterator[PlainParallel]:
    """Run the plain loop on the first board, which this process is, and on the second.

    Args:
        lab: that is up.
        loaded: an image classifier.
    """
    first, second = lab.boards[:2]
    port = next(_PORTS)
    words = [sys.executable, "-m", "bench.lab.plain_parallel", loaded.info.source]
    helper = lab.start(second.name, [*words, first.address, str(port)], environment=_ONE_THREAD)
    try:
        loop = PlainParallel(loaded, first.address, port)
        yield loop
        loop.close()
        helper.wait()
    finally:
        helper.kill()
        helper.wait()
