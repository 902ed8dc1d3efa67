"""Engines of one model joined by real Gloo sockets, each in a thread of this process."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from prism.engine.engine import Engine
from prism.engine.strategies import STRATEGIES
from prism.models.inputs import check_inputs
from prism.models.instrument import never
from prism.models.load import adopt
from prism.models.outputs import settle_form
from prism.output_form import OutputForm
from prism.plan import Plan
from prism.transport.gloo import GlooTransport, connect_store, epoch_store, serve_store

NAMES = ("node0", "node1", "node2")
_HOST = "127.0.0.1"
_TIMEOUT_S = 20.0


class Ranks:
    """As many engines with a copy of `model` each as there are ranks.

    Args:
        size: number of ranks.
        model: a transformers model.
        family: fields of its family description to change.
    """

    def __init__(self, size, model, **family):
        self.pool = ThreadPoolExecutor(size)
        self.store = serve_store(_HOST, 0, _TIMEOUT_S)
        self.epoch = 0
        self.engines = [self._engine(model, rank, family) for rank in range(size)]
        self.transports = self.each(self._join)

    def _engine(self, model, rank, family):
        loaded = adopt(copy.deepcopy(model))
        changed = replace(loaded.info, family=replace(loaded.info.family, **family))
        return Engine(replace(loaded, info=changed), f"node{rank}")

    def _join(self, rank):
        store = epoch_store(connect_store(_HOST, self.store.port, _TIMEOUT_S), self.epoch)
        return GlooTransport(store, rank, len(self.engines), _TIMEOUT_S, _HOST)

    def each(self, action):
        """Return what `action(rank)` gives on all ranks at once."""
        return list(self.pool.map(action, range(len(self.engines))))

    def run(
        self, plan, inputs, ranks=None, timeout_s=_TIMEOUT_S, should_cancel=never, output="full"
    ):
        """Run one request on all ranks, or on some; return their executions, or their errors.

        `inputs` are those of all ranks, or a list with those of each.
        """
        parsed = Plan.parse(plan)

        def action(rank):
            if ranks is not None and rank not in ranks:
                return None
            engine = self.engines[rank]
            try:
                own = inputs[rank] if isinstance(inputs, list) else inputs
                info = engine.loaded.info
                _, length = check_inputs(info, own)
                placement = STRATEGIES[parsed.strategy].place(info, parsed, NAMES, own, length)
                return engine.run(
                    placement.inputs[NAMES[rank]],
                    parsed,
                    length=length,
                    output=settle_form(engine.loaded.info, OutputForm.parse(output)),
                    transport=self.transports[rank],
                    timeout_s=timeout_s,
                    should_cancel=should_cancel,
                    whole_shape=placement.whole_shape,
                )
            except Exception as error:
                return error

        return self.each(action)

    def regroup(self):
        """Connect all ranks anew, after a failure."""
        for transport in self.transports:
            transport.close()
        self.epoch += 1
        self.transports = self.each(self._join)

    def close(self):
        for transport in self.transports:
            transport.close()
        for engine in self.engines:
            engine.close()
        self.pool.shutdown()
