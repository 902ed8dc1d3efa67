"""What a strategy means, one object each: all in which `local`, `batch` and `sequence` differ.

`STRATEGIES[plan.strategy]` says, in the order of a request's life, what the request must satisfy,
what each node is given, what a node computes, how the answers become one, and how the waiting is
booked. Nothing outside this table asks a plan for its strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from typing_extensions import override

from prism.engine.pooling import PooledParts
from prism.engine.rows import join_rows, rows_of
from prism.engine.sequence import SequencePass
from prism.models.inputs import check_partition, main_input, token_mask
from prism.models.load import LoadedModel, ModelInfo
from prism.models.outputs import Reduction
from prism.output_form import OutputForm
from prism.partition.forward_pass import ForwardPass
from prism.partition.spans import rows
from prism.plan import Plan
from prism.record import RunRecord
from prism.transport.base import Transport
from prism.transport.staging import Staging

Inputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One batch as one node is given it.

    Attributes:
        plan: how it is run.
        inputs: checked; what `Strategy.place` made for this node.
        output: the form of the output that is wanted.
        transport: connects the plan's nodes in its order; None where they exchange nothing.
        timeout_s: longest wait for one exchange.
        should_cancel: whether nobody waits for the answer any more.
    """

    plan: Plan
    inputs: Inputs
    output: OutputForm
    transport: Transport | None
    timeout_s: float
    should_cancel: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a node computed, and what of its time was no computing; see `RunRecord`."""

    output: Any
    staging_s: float = 0.0
    comm_s: float = 0.0
    output_s: float = 0.0
    bytes_sent: int = 0
    messages: int = 0


class Runner(Protocol):
    """What a strategy needs of a loaded model on this node; the engine is one.

    Attributes:
        loaded: the model.
    """

    loaded: LoadedModel

    def forward(
        self,
        inputs: Inputs,
        forward_pass: ForwardPass | None,
        should_cancel: Callable[[], bool],
        reduction: Reduction,
    ) -> Any:
        """Return what becomes of the model's output, its blocks computed as the pass says."""

    def staging_for(self, transport: Transport) -> Staging:
        """Return the frames for such a transport, kept so that they are reused."""

    def drop_frames(self) -> None:
        """Take new frames from now on: a failed transport may still hold the old ones."""


class Strategy(Protocol):
    """One way to use several nodes."""

    def check(self, info: ModelInfo, plan: Plan, inputs: Inputs, length: int) -> None:
        """Check that a plan can serve a request that fits the model.

        Args:
            info: the model.
            plan: of this strategy.
            inputs: checked by `models.inputs.check_inputs`.
            length: tokens per sample.

        Raises:
            PlanError: the plan does not fit the model.
            RequestError: the plan does not fit the request.
        """

    def place(
        self, plan: Plan, nodes: Sequence[str], inputs: Inputs, batch: int
    ) -> dict[str, Inputs]:
        """Return what each node is given to compute on, in the order of `nodes`.

        Args:
            plan: of this strategy.
            nodes: names of its nodes, rank 0 first.
            inputs: the whole request.
            batch: its rows.

        Returns:
            Inputs by node, the same object where they are the same; a node with nothing to do is
            left out.
        """

    def run(self, runner: Runner, job: Job) -> Ran:
        """Compute this node's part.

        Raises:
            Cancelled: nobody waits for it.
            ModelFailed: the model raised.
            NodeFailed: this machine failed.
            PeerLost, DeadlineExceeded: a peer failed.
        """

    def join(self, outputs: Sequence[Any]) -> Any:
        """Return the request's output from those of its nodes, in the order of `place`.

        Raises:
            RequestError: the model's outputs cannot be joined.
        """

    def settle(self, record: RunRecord, *, late_s: float, after_s: float) -> RunRecord:
        """Return the first node's record with its waiting booked where it came from.

        Args:
            record: the first node's own.
            late_s: how much later than its input the last node's input arrived; not negative.
            after_s: how much later than its answer the last answer arrived; not negative.
        """


class LocalStrategy(Strategy):
    """One node computes everything, as plain transformers does."""

    @override
    def check(self, info: ModelInfo, plan: Plan, inputs: Inputs, length: int) -> None:
        """Take whatever the model takes."""

    @override
    def place(
        self, plan: Plan, nodes: Sequence[str], inputs: Inputs, batch: int
    ) -> dict[str, Inputs]:
        return dict.fromkeys(nodes, inputs)

    @override
    def run(self, runner: Runner, job: Job) -> Ran:
        reduction = Reduction(runner.loaded.info, job.output, job.inputs)
        return Ran(runner.forward(job.inputs, None, job.should_cancel, reduction))

    @override
    def join(self, outputs: Sequence[Any]) -> Any:
        return outputs[0]

    @override
    def settle(self, record: RunRecord, *, late_s: float, after_s: float) -> RunRecord:
        return record


class BatchStrategy(LocalStrategy):
    """Every node computes its rows of the batch, as `local` does."""

    @override
    def place(
        self, plan: Plan, nodes: Sequence[str], inputs: Inputs, batch: int
    ) -> dict[str, Inputs]:
        spans = rows(batch, plan.size, plan.shares)
        return {
            name: rows_of(inputs, span.start, span.stop)
            for name, span in zip(nodes, spans, strict=True)
            if span.size
        }

    @override
    def join(self, outputs: Sequence[Any]) -> Any:
        return join_rows(outputs)

    @override
    def settle(self, record: RunRecord, *, late_s: float, after_s: float) -> RunRecord:
        """Book the wait for the last rows as output, but as input where they started late."""
        waited_s = record.output_s + after_s
        late_s = min(waited_s, late_s)
        return replace(record, input_s=record.input_s + late_s, output_s=waited_s - late_s)


class SequenceStrategy(LocalStrategy):
    """Every node computes its positions; rank 0 runs the model head and has the output."""

    @override
    def check(self, info: ModelInfo, plan: Plan, inputs: Inputs, length: int) -> None:
        check_partition(info, plan, inputs, length)

    @override
    def run(self, runner: Runner, job: Job) -> Ran:
        transport = job.transport
        assert transport is not None, "a sequence plan needs a transport"
        counters = transport.counters
        counters.reset()
        staging = runner.staging_for(transport)
        info = runner.loaded.info
        reduction = Reduction(info, job.output, job.inputs)
        needed = reduction.rows()
        forward_pass = SequencePass(
            job.plan,
            info.shape,
            transport,
            staging,
            real_BN=token_mask(main_input(info), job.inputs.get("attention_mask")),
            first_rows=needed.first,
            last_rows=needed.last,
            rows_stay=needed.parts > 0,
            timeout_s=job.timeout_s,
        )
        if needed.parts:
            reduction = PooledParts(info, job.output, job.inputs, forward_pass)
        try:
            output = runner.forward(job.inputs, forward_pass, job.should_cancel, reduction)
        except BaseException:
            if not forward_pass.over:
                # The others wait for frames that will not come: the closed connection tells them.
                transport.close()
                runner.drop_frames()
            raise
        return Ran(
            output,
            staging_s=staging.staging_s,
            # What the counters saw of waiting includes the gathering of the output.
            comm_s=counters.comm_s - forward_pass.output_s,
            output_s=forward_pass.output_s,
            bytes_sent=counters.bytes_sent,
            messages=counters.messages,
        )

    @override
    def settle(self, record: RunRecord, *, late_s: float, after_s: float) -> RunRecord:
        """Book as input what rank 0 waited inside the model for peers without their input."""
        late_s = min(record.comm_s, late_s)
        return replace(record, input_s=record.input_s + late_s, comm_s=record.comm_s - late_s)


STRATEGIES: Mapping[str, Strategy] = {
    "local": LocalStrategy(),
    "batch": BatchStrategy(),
    "sequence": SequenceStrategy(),
}
