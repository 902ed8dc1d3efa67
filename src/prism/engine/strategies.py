"""What a strategy means, one object each: all in which `local`, `batch` and `sequence` differ.

`STRATEGIES[plan.strategy]` says, in the order of a request's life, what the request must satisfy,
what each node is given, what a node computes, how the answers become one, and how the waiting is
booked. Nothing outside this table asks a plan for its strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from typing_extensions import override

from prism.engine.arriving import can_catch_up, run_arriving
from prism.engine.pooling import PooledParts
from prism.engine.rows import join_rows, rows_of
from prism.engine.sequence import SequencePass
from prism.engine.strategy import Inputs, Job, Placement, Ran, Runner, Strategy
from prism.engine.waiting import Report, book_end, book_last_rows, book_late_peers
from prism.models.inputs import check_partition, main_input, token_mask
from prism.models.instrument import BeforeBlock
from prism.models.load import ModelInfo
from prism.models.outputs import Reduction
from prism.models.own_input import can_be_cut, cut, embedding_only, restore
from prism.partition.own_input import rows_ahead, travels_in_parts
from prism.partition.spans import Span, rows, spans
from prism.plan import Plan
from prism.record import RunRecord


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
        ahead = rows_ahead(len(main), row_bytes)
        if ahead == len(main) or not can_catch_up(info, inputs):
            return None
        return {name: main[:ahead]}, {name: main[ahead:]}

    @override
    def run(self, runner: Runner, job: Job) -> Ran:
        if job.rest is None:
            return super().run(runner, job)

        reduction = Reduction(runner.loaded.info, job.output, job.inputs)

        def forward(inputs: Inputs, before_block: BeforeBlock | None) -> Any:
            return runner.forward(inputs, None, job.should_cancel, reduction, before_block)

        output = run_arriving(forward, job.inputs, job.rest, runner.hooked)
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
