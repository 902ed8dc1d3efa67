"""Run one batch under one plan on this node; report what it cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from prism.engine.sequence import SequencePass
from prism.errors import ClusterError
from prism.models.inputs import check_inputs, check_plan, prepare
from prism.models.instrument import attached
from prism.models.load import LoadedModel
from prism.partition.forward_pass import PassComplete
from prism.plan import Plan
from prism.record import RunRecord
from prism.transport.base import Counters, Transport
from prism.transport.staging import Staging


@dataclass(frozen=True, slots=True)
class Execution:
    """One run on one node.

    Attributes:
        output: the model's usual ModelOutput; None on helpers of a sequence plan.
        record: what it cost here.
    """

    output: Any
    record: RunRecord


class Engine:
    """One loaded model on one node; serves any plan, one request at a time.

    Args:
        loaded: the model.
        node: this node's name, for the records.
    """

    def __init__(self, loaded: LoadedModel, node: str = "node0") -> None:
        self.loaded = loaded
        self.node = node
        self._device = next(loaded.model.parameters()).device
        self._staging: dict[int, Staging] = {}

    def run(
        self,
        inputs: Mapping[str, Any],
        plan: Plan,
        *,
        transport: Transport | None = None,
        timeout_s: float = 60.0,
    ) -> Execution:
        """Run the rows given here under `plan`.

        Args:
            inputs: the model's inputs; for `batch`, this node's rows; for `sequence`, the whole
                request on every node.
            plan: `sequence` is split over `transport`; `local` and `batch` run what is given.
            transport: connects the nodes of a sequence plan, in the plan's order.
            timeout_s: longest wait for one exchange.

        Raises:
            RequestError, PlanError: the request does not fit the model or the plan.
            PeerLost, DeadlineExceeded: a peer failed; the transport must be replaced.
        """
        info = self.loaded.info
        batch, length = check_inputs(info, inputs)
        check_plan(info, plan, inputs, length)
        started_s = time.perf_counter()
        prepared = prepare(info, inputs, self.loaded.model)
        if plan.strategy != "sequence":
            output = self._forward(prepared, nullcontext())
            record = self._record(plan, batch, length, time.perf_counter() - started_s)
            return Execution(output, record)
        assert transport is not None, "a sequence plan needs a transport"
        transport.counters.reset()
        staging = self._staging_for(transport)
        forward_pass = self._sequence_pass(plan, prepared, transport, staging, timeout_s)
        try:
            output = self._forward(prepared, attached(self.loaded.model, info.family, forward_pass))
        except ClusterError:
            # Gloo may still write to the frames of the exchange that failed.
            self._staging.clear()
            raise
        record = self._record(
            plan,
            batch,
            length,
            time.perf_counter() - started_s,
            transport.counters,
            staging_s=staging.staging_s,
            output_s=forward_pass.output_s,
        )
        return Execution(output, record)

    def _forward(self, prepared: dict[str, Any], context: AbstractContextManager[None]) -> Any:
        with torch.inference_mode(), context:
            try:
                output = self.loaded.model(**prepared)
            except PassComplete:
                output = None
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            return output

    def _sequence_pass(
        self,
        plan: Plan,
        prepared: Mapping[str, Any],
        transport: Transport,
        staging: Staging,
        timeout_s: float,
    ) -> SequencePass:
        info = self.loaded.info
        mask = prepared.get("attention_mask")
        real_BN = None if mask is None or bool(mask.all()) else mask.bool()
        keep = prepared.get("logits_to_keep")
        return SequencePass(
            plan,
            info.shape,
            transport,
            staging,
            real_BN=real_BN,
            first_rows=1 if info.architecture.__name__ in info.family.first_row_classes else None,
            last_rows=keep if info.family.tail_rows and isinstance(keep, int) and keep else None,
            timeout_s=timeout_s,
        )

    def _staging_for(self, transport: Transport) -> Staging:
        """Return the frames for transports with this header, kept so that they are reused."""
        header = transport.header_bytes
        if header not in self._staging:
            self._staging[header] = Staging(self._device, header)
        self._staging[header].reset()
        return self._staging[header]

    def _record(
        self,
        plan: Plan,
        batch: int,
        length: int,
        total_s: float,
        counters: Counters | None = None,
        *,
        staging_s: float = 0.0,
        output_s: float = 0.0,
    ) -> RunRecord:
        counters = counters or Counters()
        # What the counters saw of waiting includes the gathering of the output.
        comm_s = counters.comm_s - output_s
        return RunRecord(
            node=self.node,
            plan=plan,
            batch=batch,
            length=length,
            total_s=total_s,
            compute_s=max(0.0, total_s - staging_s - comm_s - output_s),
            staging_s=staging_s,
            comm_s=comm_s,
            output_s=output_s,
            bytes_sent=counters.bytes_sent,
            messages=counters.messages,
        )
