"""One partition of a sequence plan: own rows here, the others' rows over a transport.

The distributed `ForwardPass`. What one rank does, in a model of L blocks, with `lag` 0 or 1:

    to begin        expect(1 + lag)
    on entering     rows = my positions of the input; others = everybody else's means of it, made
                    here or, where only rank 0 has the whole input, sent by it (key 0)
    for block l in 0 .. L-1:
        before it   if l > 0:      send(l + lag): means of rows -> my listeners
                                   expect(l + lag + 1)
                    if l == L-1:   let only the rows that the model head needs ask on
        inside it   if l > lag:    others = collect(l)
                    rows = block l of rows, attending to [rows ; others] with bias log(count)
    on leaving      a helper:      send(L): the rows the model head needs -> rank 0; finish; end
                    rank 0:        rows = [rows ; collect(L)]; finish; the model head follows

Rotary families send and collect keys and values inside the attention, every block, without lag.
Clusters are chosen where means are sent: by a block's normalised input, or by the keys there.
Who expects an exchange, and when, is one exchange ahead (see `Exchange`); `collect` stands still
until the others' frames are here; own frames go out meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from typing_extensions import override

from prism.engine.exchange import Exchange, Shape
from prism.engine.view import PartitionView
from prism.partition.forward_pass import ForwardPass, PassComplete, Standardise
from prism.partition.heads import join_heads, split_heads
from prism.partition.spans import Span
from prism.plan import ModelShape, Plan
from prism.transport.base import Transport
from prism.transport.staging import WIRE_DTYPES, Staging


class SequencePass(ForwardPass):
    """A `ForwardPass` for one rank of a sequence plan.

    Args:
        plan: the sequence plan; rank r computes partition r.
        shape: the model.
        transport: connects the plan's nodes, in the plan's order.
        staging: makes frames of tensors.
        batch: samples.
        length: positions per sample.
        device: where the model lives.
        in_parts: whether helpers have only their own positions of the input.
        real_BN: True where a token is real; None when all are.
        first_rows: rows of the output that the model head needs, from the first; None = all.
        last_rows: likewise from the last. At most one of the two is given.
        parts: each rank keeps its output rows, makes so many of them, of the same width, and calls
            `gather`; 0 = the output rows themselves go to rank 0.
        timeout_s: longest wait for one exchange.

    Attributes:
        standardised: see `ForwardPass`.
        own: positions computed here.
        length: positions per sample.
        output_s: time rank 0 waited for the other ranks' output rows.
        over: whether all frames of this pass are here, and own ones handed to the transport.
    """

    def __init__(
        self,
        plan: Plan,
        shape: ModelShape,
        transport: Transport,
        staging: Staging,
        *,
        batch: int,
        length: int,
        device: torch.device,
        in_parts: bool = False,
        real_BN: torch.Tensor | None = None,
        first_rows: int | None = None,
        last_rows: int | None = None,
        parts: int = 0,
        timeout_s: float,
    ) -> None:
        self.output_s = 0.0
        self.over = False
        self._plan = plan
        self._shape = shape
        self._last = shape.blocks - 1
        self._rank = transport.rank
        self._counters = transport.counters
        self._wire = WIRE_DTYPES[plan.wire]
        self._output_key = shape.blocks  # one after the last block's exchange
        self._exchange = Exchange(transport, staging, self._wire, timeout_s, self._output_key + 1)
        self._in_parts = in_parts
        self._view = PartitionView(
            plan,
            transport.rank,
            length,
            causal=shape.causal,
            real_BN=None if real_BN is None else real_BN.to(device),
            device=device,
        )
        self.standardised = self._view.clusters
        self._needed = [
            _overlap(span, _rows_for_model_head(length, first_rows, last_rows))
            for span in self._view.spans
        ]
        # Whose rows nobody asks for: such a helper ends before the last block's attention.
        self._idle = {rank for rank, span in enumerate(self._needed) if rank != 0 and not span.size}
        self._batch = batch
        self._parts = parts
        self.own = self._view.own
        self.length = length
        self._pruned: tuple[torch.Tensor, slice] | None = None

    def begin(self) -> None:
        """Start receiving what comes first, so that it need not wait for this rank to ask.

        Raises:
            PeerLost: a peer's connection is broken.
        """
        if self._shape.rotary:
            self._expect(0)
            return
        if self._in_parts and self._rank != 0:
            shapes = [self._shape_from(rank) for rank in self._view.sources]
            batch, _, width = shapes[0]
            self._exchange.expect(0, {0: (batch, sum(rows for _, rows, _ in shapes), width)})
        self._expect(1 + self._plan.lag)

    @property
    def first_wait_s(self) -> float:
        """Time this rank waited for the first frames of its peers."""
        return self._exchange.first_wait_s

    @override
    def enter(self, hidden_BND: torch.Tensor, standardise: Standardise) -> torch.Tensor:
        self._like = hidden_BND.new_empty(0)
        if not self._shape.rotary:
            self._see_input(self._rows(hidden_BND, standardise))
        return hidden_BND[:, self._view.own.start : self._view.own.stop].contiguous()

    @override
    def slice_positions(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        return x.narrow(dim, self._view.own.start, self._view.own.size)

    @override
    def before_block(
        self, index: int, hidden_BnD: torch.Tensor, standardise: Standardise
    ) -> torch.Tensor:
        if self._shape.rotary:
            return hidden_BnD
        rows_BnD = self._rows(hidden_BnD, standardise)
        serves = index + self._plan.lag  # the block whose attention will use these rows
        if serves <= self._last:
            self._send(serves, rows_BnD, judged_by=rows_BnD)
            self._expect(serves + 1)
        if serves >= self._last and self._rank in self._idle:
            self._end(hidden_BnD, [])
        return self._prune(hidden_BnD, rows_BnD) if index == self._last else hidden_BnD

    @override
    def context(self, index: int) -> torch.Tensor | None:
        if index <= self._plan.lag:
            received = self._of_input()
        else:
            received = self._exchange.collect(index, self._like)
        others = None if received is None else self._view.take(received)
        if self._pruned is None:
            return others
        own, _ = self._pruned
        return own if others is None else torch.cat([own, others], dim=1)

    @override
    def replaces_own_keys(self, index: int) -> bool:
        return self._pruned is not None

    @override
    def keyed_context(
        self, index: int, key_BGnd: torch.Tensor, value_BGnd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        key_BnE, value_BnE = join_heads(key_BGnd), join_heads(value_BGnd)
        self._send(index, torch.cat([key_BnE, value_BnE], dim=-1), judged_by=key_BnE)
        self._expect(index + 1)
        if index == self._last and self._rank in self._idle:
            self._end(key_BnE, [])
        received = self._exchange.collect(index, key_BnE)
        if received is None:
            return None
        key, value = self._view.take(received).chunk(2, dim=-1)
        heads = key_BGnd.shape[1]
        return split_heads(key, heads), split_heads(value, heads)

    @override
    def bias(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        bias = self._view.bias(mask)
        if bias is None or self._pruned is None or bias.shape[2] == 1:
            return bias
        return bias[:, :, self._pruned[1]]

    @override
    def leave(self, hidden_BnD: torch.Tensor) -> torch.Tensor:
        if self._parts:
            return hidden_BnD
        own = hidden_BnD
        if self._pruned is None:
            own = hidden_BnD[:, _within(self._needed[self._rank], self._view.own)]
        return self.gather(own)

    def gather(self, own_BnD: torch.Tensor) -> torch.Tensor:
        """Return own rows followed by those of the other ranks, on rank 0.

        Raises:
            PassComplete: this place is not rank 0; its part is done.
        """
        if self._rank != 0:
            self._end(own_BnD, [0] if own_BnD.shape[1] else [])
        waited_s = self._counters.comm_s
        others = self._exchange.collect(self._output_key, own_BnD)
        self.output_s = self._counters.comm_s - waited_s
        self._finish()
        return own_BnD if others is None else torch.cat([own_BnD, others], dim=1)

    def _rows(self, hidden_BnD: torch.Tensor, standardise: Standardise) -> torch.Tensor:
        """Return the form of a block's input that is averaged, and judged for similarity."""
        return standardise(hidden_BnD) if self.standardised else hidden_BnD

    def _see_input(self, rows_BND: torch.Tensor) -> None:
        """Make what everybody sends of the input of block 0, where that is known.

        It is rounded as if it had travelled, since that is what it does in parts.
        """
        self._input: torch.Tensor | None = None
        if self._in_parts and self._rank != 0:
            return
        ranks = range(self._plan.size) if self._in_parts else self._view.sources
        payloads = {
            rank: payload.to(self._wire).to(payload.dtype)
            for rank, payload in self._view.payloads_of_input(rows_BND, ranks).items()
        }
        if self._in_parts:
            for helper in self._view.listeners:
                others = [payload for rank, payload in payloads.items() if rank != helper]
                self._exchange.send(0, torch.cat(others, dim=1), [helper])
        sources = [payloads[rank] for rank in self._view.sources]
        self._input = torch.cat(sources, dim=1) if sources else None

    def _of_input(self) -> torch.Tensor | None:
        """Return what the sources would send of the input of block 0."""
        if self._input is None and self._in_parts:
            self._input = self._exchange.collect(0, self._like)
        return self._input

    def _shape_from(self, rank: int) -> Shape:
        """Return the shape of what a rank sends of its rows."""
        return self._view.payload_shape(rank, self._batch, self._shape.row_elements)

    def _expect(self, key: int) -> None:
        """Start receiving what an exchange brings to this rank, if it is there to take it."""
        if key <= self._last:
            sources = () if key == self._last and self._rank in self._idle else self._view.sources
            self._exchange.expect(key, {rank: self._shape_from(rank) for rank in sources})
        elif self._rank == 0:
            helpers = [rank for rank in range(1, self._plan.size) if rank not in self._idle]
            rows = {rank: self._parts or self._needed[rank].size for rank in helpers}
            shapes = {rank: (self._batch, rows[rank], self._shape.hidden) for rank in helpers}
            self._exchange.expect(self._output_key, shapes)

    def _send(self, key: int, rows_BnE: torch.Tensor, judged_by: torch.Tensor) -> None:
        """Send the listeners the means of own rows.

        Rows that are alike in `judged_by` are averaged together where means are of clusters.
        """
        listeners = self._view.listeners
        if key == self._last:
            listeners = [rank for rank in listeners if rank not in self._idle]
        if listeners:
            payload = self._view.payload(rows_BnE, self._view.groups(judged_by))
            self._exchange.send(key, payload, listeners)

    def _prune(self, hidden_BnD: torch.Tensor, rows_BnD: torch.Tensor) -> torch.Tensor:
        """Let only the rows the model head needs ask questions in the last block."""
        keep = _within(self._needed[self._rank], self._view.own)
        if self._shape.causal or keep == slice(0, self._view.own.size):
            return hidden_BnD
        self._pruned = (rows_BnD, keep)
        return hidden_BnD[:, keep]

    def _end(self, output: torch.Tensor, send_to: Sequence[int]) -> NoReturn:
        """End a helper's part with its output rows, where they are needed."""
        self._exchange.send(self._output_key, output, send_to)
        self._finish()
        raise PassComplete

    def _finish(self) -> None:
        self._exchange.finish()
        self.over = True


def _rows_for_model_head(length: int, first_rows: int | None, last_rows: int | None) -> Span:
    """Return the positions that the model head needs."""
    if last_rows is not None:
        return Span(max(0, length - last_rows), length)
    return Span(0, min(first_rows or length, length))


def _overlap(span: Span, other: Span) -> Span:
    start = min(max(span.start, other.start), span.stop)
    return Span(start, max(start, min(span.stop, other.stop)))


def _within(part: Span, whole: Span) -> slice:
    """Return where `part` lies in rows counted from the start of `whole`."""
    return slice(part.start - whole.start, part.stop - whole.start)
