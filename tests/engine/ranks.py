"""Engines of one model joined by real Gloo sockets, each in a thread of this process."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from prism.engine.engine import Engine
from prism.models.load import adopt
from prism.plan import Plan
from prism.transport.gloo import GlooTransport, connect_store, epoch_store, serve_store

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
        self.engines = [self._engine(model, rank, family) for rank in range(size)]
        self.transports = self.each(self._join)

    def _engine(self, model, rank, family):
        loaded = adopt(copy.deepcopy(model))
        changed = replace(loaded.info, family=replace(loaded.info.family, **family))
        return Engine(replace(loaded, info=changed), f"node{rank}")

    def _join(self, rank):
        store = epoch_store(connect_store(_HOST, self.store.port, _TIMEOUT_S), 0)
        return GlooTransport(store, rank, len(self.engines), _TIMEOUT_S, _HOST)

    def each(self, action):
        """Return what `action(rank)` gives on all ranks at once."""
        return list(self.pool.map(action, range(len(self.engines))))

    def run(self, plan, inputs, ranks=None, timeout_s=_TIMEOUT_S):
        """Run one request on all ranks, or on some; return their executions, or their errors."""

        def action(rank):
            if ranks is not None and rank not in ranks:
                return None
            try:
                return self.engines[rank].run(
                    inputs,
                    Plan.parse(plan),
                    transport=self.transports[rank],
                    timeout_s=timeout_s,
                )
            except Exception as error:
                return error

        return self.each(action)

    def close(self):
        for transport in self.transports:
            transport.close()
        self.pool.shutdown()
