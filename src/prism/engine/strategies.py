"""What a strategy means, one object each: all in which `local`, `batch` and `sequence` differ.

`STRATEGIES[plan.strategy]` says, in the order of a request's life, what the request must satisfy,
what each node is given, what a node computes, how the answers become one, and how the waiting is
booked. Nothing outside this table asks a plan for its strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from typing_extensions import override

from prism.engine.arriving import Rest, run_arriving
from prism.engine.pooling import PooledParts
from prism.engine.rows import join_rows, rows_of
from prism.engine.sequence import SequencePass
from prism.engine.waiting import Report, book_end, book_last_rows, book_late_peers
from prism.models.inputs import check_partition, main_input, token_mask
from prism.models.instrument import BeforeBlock
from prism.models.load import LoadedModel, ModelInfo
from prism.models.outputs import Reduction
from prism.models.own_input import can_be_cut, cut, embedding_only, restore
from prism.output_form import OutputForm
from prism.partition.forward_pass import ForwardPass
from prism.partition.own_input import travels_in_parts
from prism.partition.spans import Span, rows, spans
from prism.plan import Plan
from prism.record import RunRecord
from prism.transport.base import Transport
from prism.transport.staging import Staging

Inputs = Mapping[str, Any]
# A row of fewer bytes, such as a text, is not worth a message of its own.
_ROW_BYTES = 16_000
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One batch as one node is given it.

    Attributes:
        plan: how it is run.
        inputs: checked; what `Strategy.place` made for this node.
        length: tokens per sample.
        output: the form of the output that is wanted.
        transport: connects the plan's nodes in its order; None where they exchange nothing.
        whole_shape: see `Placement`.
        rest: rows that follow those of `inputs`; see `Strategy.sent_first`.
        timeout_s: longest wait for one exchange.
        should_cancel: whether nobody waits for the answer any more.
    """

    plan: Plan
    inputs: Inputs
    length: int
    output: OutputForm
    transport: Transport | None
    timeout_s: float
    should_cancel: Callable[[], bool]
    whole_shape: Shape | None = None
    rest: Rest | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """What the nodes of a plan are given.

    Attributes:
        inputs: by node, the same object where they are the same; a node with nothing to do is
            left out.
        whole_shape: shape of the main input, where all nodes but the first are given only the part
            that their own positions are made of; None where nothing is cut by positions.
    """

    inputs: Mapping[str, Inputs]
    whole_shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Ran:
    """What a node computed, and what of its time was no computing; see `RunRecord`."""

    output: Any
    staging_s: float = 0.0
    comm_s: float = 0.0
    input_s: float = 0.0
    output_s: float = 0.0
    bytes_sent: int = 0
    messages: int = 0
    first_wait_s: float = 0.0


class Runner(Protocol):
    """What a strategy needs of a loaded model on this node; the engine is one.

    Attributes:
        loaded: the model.
        device: where it lives.
    """

    loaded: LoadedModel
    device: torch.device

    def forward(
        self,
        inputs: Inputs,
        forward_pass: ForwardPass | None,
        should_cancel: Callable[[], bool],
        reduction: Reduction,
        before_block: BeforeBlock | None = None,
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
        self, info: ModelInfo, plan: Plan, nodes: Sequence[str], inputs: Inputs, length: int
    ) -> Placement:
        """Return what each node is given to compute on, in the order of `nodes`.

        Args:
            info: the model.
            plan: of this strategy.
            nodes: names of its nodes, rank 0 first.
            inputs: the whole request, checked.
            length: tokens per sample.
        """

    def sent_first(self, info: ModelInfo, inputs: Inputs) -> tuple[Inputs, Inputs] | None:
        """Cut what a node is given in two, so that it can begin while the second part travels.

        Args:
            info: the model.
            inputs: what `place` gave it.

        Returns:
            What to send first, and the rest; None where it needs all to begin.
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

    def settle(self, first: Report, others: Sequence[Report], ended_s: float) -> RunRecord:
        """Return the first node's record with all waiting booked where it came from.

        Args:
            first: of the first node.
            others: of the other nodes that took part.
            ended_s: when the output was joined; from the first node's answer to here is added.
        """


class LocalStrategy(Strategy):
    """One node computes everything, as plain transformers does."""

    @override
    def check(self, info: ModelInfo, plan: Plan, inputs: Inputs, length: int) -> None:
        """Take whatever the model takes."""

    @override
    def place(
        self, info: ModelInfo, plan: Plan, nodes: Sequence[str], inputs: Inputs, length: int
    ) -> Placement:
        return Placement(dict.fromkeys(nodes, inputs))

    @override
    def sent_first(self, info: ModelInfo, inputs: Inputs) -> tuple[Inputs, Inputs] | None:
        return None

    @override
    def run(self, runner: Runner, job: Job) -> Ran:
        reduction = Reduction(runner.loaded.info, job.output, job.inputs)
        return Ran(runner.forward(job.inputs, None, job.should_cancel, reduction))

    @override
    def join(self, outputs: Sequence[Any]) -> Any:
        return outputs[0]

    @override
    def settle(self, first: Report, others: Sequence[Report], ended_s: float) -> RunRecord:
        return book_end(first, ended_s)


class BatchStrategy(LocalStrategy):
    """Every node computes its rows of the batch, as `local` does."""

    @override
    def place(
        self, info: ModelInfo, plan: Plan, nodes: Sequence[str], inputs: Inputs, length: int
    ) -> Placement:
        spans = rows(inputs[main_input(info)].shape[0], plan.size, plan.shares)
        return Placement(
            {
                name: rows_of(inputs, span.start, span.stop)
                for name, span in zip(nodes, spans, strict=True)
                if span.size
            }
        )

    @override
    def sent_first(self, info: ModelInfo, inputs: Inputs) -> tuple[Inputs, Inputs] | None:
        name = main_input(info)
        main: torch.Tensor = inputs[name]
        row_bytes = main[0].numel() * main.itemsize
        # Other inputs, such as a mask or labels, tell the model of all rows at once.
        if len(inputs) > 1 or len(main) < 2 or row_bytes < _ROW_BYTES:
            return None
        return {name: main[:1]}, {name: main[1:]}

    @override
    def run(self, runner: Runner, job: Job) -> Ran:
        if job.rest is None:
            return super().run(runner, job)

        reduction = Reduction(runner.loaded.info, job.output, job.inputs)

        def forward(inputs: Inputs, before_block: BeforeBlock | None) -> Any:
            return runner.forward(inputs, None, job.should_cancel, reduction, before_block)

        output = run_arriving(forward, job.inputs, job.rest)
        return Ran(output, input_s=job.rest.waited_s)

    @override
    def join(self, outputs: Sequence[Any]) -> Any:
        return join_rows(outputs)

    @override
    def settle(self, first: Report, others: Sequence[Report], ended_s: float) -> RunRecord:
        return book_last_rows(first, others, ended_s)


class SequenceStrategy(LocalStrategy):
    """Every node computes its positions; rank 0 runs the model head and has the output."""

    @override
    def check(self, info: ModelInfo, plan: Plan, inputs: Inputs, length: int) -> None:
        check_partition(info, plan, inputs, length)

    @override
    def place(
        self, info: ModelInfo, plan: Plan, nodes: Sequence[str], inputs: Inputs, length: int
    ) -> Placement:
        name = main_input(info)
        whole: torch.Tensor = inputs[name]
        sample_bytes = whole[0].numel() * whole.itemsize
        if not can_be_cut(name) or not travels_in_parts(plan, info.shape, length, sample_bytes):
            return Placement(dict.fromkeys(nodes, inputs))
        first, *helpers = zip(nodes, spans(length, plan.size, plan.shares), strict=True)
        parts = {node: {**inputs, name: cut(info, whole, own)} for node, own in helpers}
        return Placement({first[0]: inputs, **parts}, tuple(whole.shape))

    @override
    def run(self, runner: Runner, job: Job) -> Ran:
        transport = job.transport
        assert transport is not None, "a sequence plan needs a transport"
        counters = transport.counters
        counters.reset()
        staging = runner.staging_for(transport)
        info = runner.loaded.info
        own = _own_part(job)
        inputs = job.inputs if own is None else _restored(info, job, own)
        reduction = Reduction(info, job.output, job.inputs)
        needed = reduction.rows()
        forward_pass = SequencePass(
            job.plan,
            info.shape,
            transport,
            staging,
            batch=inputs[main_input(info)].shape[0],
            length=job.length,
            device=runner.device,
            in_parts=job.whole_shape is not None,
            real_BN=token_mask(main_input(info), job.inputs.get("attention_mask")),
            first_rows=needed.first,
            last_rows=needed.last,
            parts=needed.parts,
            timeout_s=job.timeout_s,
        )
        if needed.parts:
            reduction = PooledParts(info, job.output, job.inputs, forward_pass)
        only_own = nullcontext() if own is None else embedding_only(info, runner.loaded.model, own)
        try:
            forward_pass.begin()
            with only_own:
                output = runner.forward(inputs, forward_pass, job.should_cancel, reduction)
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
            first_wait_s=forward_pass.first_wait_s,
        )

    @override
    def settle(self, first: Report, others: Sequence[Report], ended_s: float) -> RunRecord:
        return book_late_peers(first, others, ended_s)


def _own_part(job: Job) -> Span | None:
    """Return the positions whose part of the main input is all that this node was given."""
    transport = job.transport
    if job.whole_shape is None or transport is None or transport.rank == 0:
        return None
    return spans(job.length, job.plan.size, job.plan.shares)[transport.rank]


def _restored(info: ModelInfo, job: Job, own: Span) -> Inputs:
    """Return a node's inputs in the model's own shape, zero where they were not sent."""
    name = main_input(info)
    assert job.whole_shape is not None
    return {**job.inputs, name: restore(info, job.inputs[name], own, job.whole_shape)}


STRATEGIES: Mapping[str, Strategy] = {
    "local": LocalStrategy(),
    "batch": BatchStrategy(),
    "sequence": SequenceStrategy(),
}
