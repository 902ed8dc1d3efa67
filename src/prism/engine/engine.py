"""Run one batch under one plan on this node; report what it cost."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from prism.engine.arriving import Rest
from prism.engine.strategies import STRATEGIES
from prism.engine.strategy import Job, Ran
from prism.errors import ModelFailed, NodeFailed, PrismError
from prism.models.backends import EAGER, Backend
from prism.models.inputs import main_input, prepare
from prism.models.instrument import BeforeBlock, Instrumented, never
from prism.models.load import LoadedModel
from prism.models.outputs import Reduction
from prism.output_form import FULL, OutputForm
from prism.partition.forward_pass import ForwardPass, PassComplete
from prism.plan import Plan
from prism.record import RunRecord
from prism.transport.base import Transport
from prism.transport.staging import Staging

_MACHINE_ERRORS = (torch.OutOfMemoryError, MemoryError, OSError)
# How torch words a machine's trouble in a plain RuntimeError.
_MACHINE_WORDS = ("can't allocate memory", "not enough memory", "CUDA error", "cuDNN", "CUBLAS_")


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
    """One loaded model on one node; serves any plan, one request at a time.

    Args:
        loaded: the model; its blocks are hooked until `close`.
        node: this node's name, for the records.
        backend: makes the model callable.

    Attributes:
        loaded: the model.
        device: where it lives.
        node: this node's name.
        backend: name of the backend.

    Raises:
        UnsupportedModel: the model is laid out differently from its family.
    """

    def __init__(self, loaded: LoadedModel, node: str = "node0", backend: Backend = EAGER) -> None:
        self.loaded = loaded
        self.node = node
        self.backend = backend.name
        self._backend = backend
        self._call = backend.prepare(loaded)
        self._call_base: Callable[..., Any] | None = None
        self._instrumented = Instrumented(loaded.model, loaded.info.family)
        self._main_input = main_input(loaded.info)
        self.device = next(loaded.model.parameters()).device
        self._staging: dict[Transport, Staging] = {}

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

        Whatever is raised, `transport` is closed then, so that the peers end too, unless all
        exchanges of this request were over here: then it stays in step and serves the next.
        """
        started_s = time.perf_counter()
        job = Job(
            plan, inputs, length, output, transport, timeout_s, should_cancel, whole_shape, rest
        )
        ran = STRATEGIES[plan.strategy].run(self, job)
        total_s = time.perf_counter() - started_s
        batch = int(inputs[self._main_input].shape[0]) + (rest.rows if rest else 0)
        record = self._record(plan, batch, length, total_s, ran)
        return Execution(ran.output, record, ran.first_wait_s)

    def forward(
        self,
        inputs: Mapping[str, Any],
        forward_pass: ForwardPass | None,
        should_cancel: Callable[[], bool],
        reduction: Reduction,
        before_block: BeforeBlock | None = None,
    ) -> Any:
        """Return what becomes of the model's output; None where its blocks are left early.

        Args:
            inputs: as the caller gave them.
            forward_pass: decides what the blocks compute; None = what plain transformers would.
            should_cancel: asked before every block.
            reduction: makes the wanted form of the output.
            before_block: see `Instrumented.running`.

        Raises:
            Cancelled, ModelFailed, NodeFailed, PeerLost, DeadlineExceeded: as `run`.
        """
        try:
            prepared = prepare(self.loaded.info, inputs, self.loaded.model)
            running = self._instrumented.running(forward_pass, should_cancel, before_block)
            with torch.inference_mode(), running:
                try:
                    output = reduction(self._called(prepared, reduction.base_only))
                except PassComplete:
                    output = None
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                return output
        except PrismError:
            raise
        except Exception as error:
            raise _as_prism_error(error) from error

    def _called(self, prepared: Mapping[str, Any], base_only: bool) -> Any:
        """Call the model, or only what is below its head, with the inputs that this takes."""
        if not base_only:
            return self._call(**prepared)
        base: Any = self.loaded.model.base_model
        if self._call_base is None:
            self._call_base = self._backend.prepare(replace(self.loaded, model=base))
        known = inspect.signature(base.forward).parameters
        return self._call_base(**{key: prepared[key] for key in prepared if key in known})

    def staging_for(self, transport: Transport) -> Staging:
        """Return the frames of this transport, kept so that they are reused while it lives."""
        if transport not in self._staging:
            self.drop_frames()
            self._staging[transport] = Staging(self.device, transport.header_bytes)
        self._staging[transport].reset()
        return self._staging[transport]

    def drop_frames(self) -> None:
        """Let go of the frames of closed transports; those of others may still be on their way."""
        self._staging = {each: kept for each, kept in self._staging.items() if not each.closed}

    def close(self) -> None:
        """Take the hooks off the model and let go of the frames. Safe to call twice."""
        self._instrumented.remove()
        self._staging.clear()

    def _record(self, plan: Plan, batch: int, length: int, total_s: float, ran: Ran) -> RunRecord:
        return RunRecord(
            node=self.node,
            plan=plan,
            batch=batch,
            length=length,
            total_s=total_s,
            compute_s=max(0.0, total_s - ran.staging_s - ran.comm_s - ran.input_s - ran.output_s),
            staging_s=ran.staging_s,
            comm_s=ran.comm_s,
            input_s=ran.input_s,
            output_s=ran.output_s,
            bytes_sent=ran.bytes_sent,
            messages=ran.messages,
        )


def _as_prism_error(error: Exception) -> PrismError:
    """Tell a machine's failure, which another node may not have, from the model's own."""
    text = f"{type(error).__name__}: {error}"
    of_machine = isinstance(error, RuntimeError) and any(
        words in str(error) for words in _MACHINE_WORDS
    )
    if isinstance(error, _MACHINE_ERRORS) or of_machine:
        return NodeFailed(text)
    return ModelFailed(text)
