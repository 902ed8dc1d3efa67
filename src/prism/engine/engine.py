"""Run one batch under one plan on this node; report what it cost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from prism.engine.arriving import Rest
from prism.engine.strategies import STRATEGIES
from prism.engine.strategy import Job, Ran
from prism.engine.variant import Variant
from prism.errors import PlanError, UnsupportedPrecision
from prism.models.backends import BACKENDS, EAGER, Backend, choose
from prism.models.inputs import main_input
from prism.models.instrument import never
from prism.models.load import LoadedModel
from prism.models.precision import at_precision, own_bytes
from prism.output_form import FULL, OutputForm
from prism.plan import Plan, Precision
from prism.record import RunRecord
from prism.transport.base import Transport


@dataclass(frozen=True, slots=True)
class Execution:
    """One run on one node.

    Attributes:
        output: the model's usual ModelOutput, or what was wanted of it; None on helpers of a
            sequence plan.
        record: what it cost here.
        first_wait_s: part of its `comm_s` that went by before any peer's first frame.
    """

    output: Any
    record: RunRecord
    first_wait_s: float = 0.0


class Engine:
    """One loaded model on one node, at one or more precisions.

    Serves any plan, one request at a time. Another thread may add and drop precisions meanwhile.

    Args:
        loaded: the model; its blocks are hooked until `close`.
        node: this node's name, for the records.
        backend: name of what makes the model callable, or `auto`. What it does not do, other
            precisions or parts of sequences, eager does.
        emulate: see `models.precision.at_precision`.

    Attributes:
        loaded: the model. Nobody runs its copies' original, so that they can be made at any time.
        node: this node's name.
        backend: name of the backend that runs the weights as loaded.

    Raises:
        UnsupportedModel: the model is laid out differently from its family.
        UnsupportedPrecision: the backend cannot run the model here; says why.
        ConfigError: no backend has this name.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        node: str = "node0",
        backend: str = EAGER.name,
        *,
        emulate: bool = False,
    ) -> None:
        self.loaded = loaded
        self.node = node
        self._asked = backend
        self._emulate = emulate
        self._main_input = main_input(loaded.info)
        # Shares all tensors, and is neither hooked nor running while copies of it are made.
        self._original: LoadedModel | None = at_precision(loaded, "float32")
        first = Variant(loaded, choose(backend, loaded))
        self.backend = first.backend
        self._variants: dict[Precision, Variant] = {loaded.precision: first}

    @property
    def precisions(self) -> Mapping[Precision, int]:
        """By precision that plans may have, the bytes of its weights; shared ones count in each."""
        return {name: own_bytes(each.loaded) for name, each in tuple(self._variants.items())}

    def add(self, precision: Precision) -> None:
        """Make the model available at another precision; from any thread, while others run.

        Raises:
            UnsupportedPrecision: it cannot be had here; nothing has changed.
        """
        if precision in self._variants:
            return
        if self._original is None:
            raise UnsupportedPrecision(
                f"{precision} is made of float32 weights, which {self.node} has dropped; load the "
                f"model again with other precisions"
            )
        made = at_precision(self._original, precision, emulate=self._emulate)
        self._variants = {**self._variants, precision: Variant(made, self._backend_for(made))}

    def keep(self, precisions: Collection[Precision]) -> None:
        """Let go of the float32 weights if they are not among these; no others can be made then.

        Args:
            precisions: one at least is there.
        """
        if "float32" in precisions or "float32" not in self._variants:
            return
        self._variants = {name: each for name, each in self._variants.items() if name != "float32"}
        self._original = None
        self.loaded = next(iter(self._variants.values())).loaded

    def run(
        self,
        inputs: Mapping[str, Any],
        plan: Plan,
        *,
        length: int,
        output: OutputForm = FULL,
        transport: Transport | None = None,
        timeout_s: float = 60.0,
        should_cancel: Callable[[], bool] = never,
        whole_shape: tuple[int, ...] | None = None,
        rest: Rest | None = None,
    ) -> Execution:
        """Run the rows given here under `plan`.

        The request has been checked where it came in (`check_inputs`, `Strategy.check`).

        Args:
            inputs: the model's inputs, what `Strategy.place` gave this node of them.
            plan: `sequence` is split over `transport`; `local` and `batch` run what is given.
            length: tokens per sample, for the record.
            output: the form of the output, from `settle_form`.
            transport: connects the nodes of a sequence plan, in the plan's order.
            timeout_s: longest wait for one exchange.
            should_cancel: asked before every block; True ends the request.
            whole_shape: as `Strategy.place` says it.
            rest: as `Strategy.sent_first` cut it off.

        Raises:
            Cancelled: `should_cancel` said so.
            ModelFailed: the model raised, as it would on every node.
            NodeFailed: this machine has no memory left, or its device or files failed.
            PeerLost, DeadlineExceeded: a peer failed.
            PlanError: the model is not here at the plan's precision.

        Whatever is raised, `transport` is closed then, so that the peers end too, unless all
        exchanges of this request were over here: then it stays in step and serves the next.
        """
        started_s = time.perf_counter()
        variant = self._variants.get(plan.precision)
        if variant is None:
            raise PlanError(
                f"plan {plan}: {self.node} holds the model in {', '.join(self._variants)} only"
            )
        job = Job(
            plan, inputs, length, output, transport, timeout_s, should_cancel, whole_shape, rest
        )
        ran = STRATEGIES[plan.strategy].run(variant, job)
        total_s = time.perf_counter() - started_s
        batch = int(inputs[self._main_input].shape[0]) + (rest.rows if rest else 0)
        record = self._record(plan, batch, length, total_s, ran, variant)
        return Execution(ran.output, record, ran.first_wait_s)

    def _backend_for(self, made: LoadedModel) -> Backend:
        """Return what runs a copy: what was asked for, or eager where that has other precisions."""
        try:
            return choose(self._asked, made)
        except UnsupportedPrecision as error:
            if self._asked not in BACKENDS or not BACKENDS[self._asked].obstacle(made):
                logging.getLogger(__name__).warning("%s uses eager instead: %s", self.node, error)
            return EAGER

    def close(self) -> None:
        """Take the hooks off the model and let go of the frames. Safe to call twice."""
        for variant in self._variants.values():
            variant.close()

    def _record(
        self, plan: Plan, batch: int, length: int, total_s: float, ran: Ran, variant: Variant
    ) -> RunRecord:
        return RunRecord(
            node=self.node,
            plan=plan,
            batch=batch,
            length=length,
            backend=variant.backend if variant.hooked or not plan.exchanges else EAGER.name,
            total_s=total_s,
            compute_s=max(0.0, total_s - ran.staging_s - ran.comm_s - ran.input_s - ran.output_s),
            staging_s=ran.staging_s,
            comm_s=ran.comm_s,
            input_s=ran.input_s,
            output_s=ran.output_s,
            bytes_sent=ran.bytes_sent,
            messages=ran.messages,
        )
