"""One partition of a sequence plan: own rows here, the others' rows over a transport.

The distributed `ForwardPass`. What one rank does, in a model of L blocks, with `lag` 0 or 1:

    on entering     rows, others = my positions of the input, everybody else's means of it
    for block l in 0 .. L-1:
        before it   if l > 0:      post(l + lag): means of rows -> my listeners
                    if l == L-1:   let only the rows that the model head needs ask on
        inside it   if l > lag:    others = collect(l)
                    rows = block l of rows, attending to [rows ; others] with bias log(count)
    on leaving      a helper:      post(L): the rows the model head needs -> rank 0; finish; end
                    rank 0:        rows = [rows ; collect(L)]; finish; the model head follows

Rotary families post and collect keys and values inside the attention, every block, without lag.
Clusters are chosen where means are posted: by a block's normalised input, or by the keys there.
`collect` stands still until the others' frames are here; own frames go out meanwhile, and are
waited for in `finish` or when their slot is filled again (see `Exchange`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        real_BN: True where a token is real; None when all are.
        first_rows: rows of the output that the model head needs, from the first; None = all.
        last_rows: likewise from the last. At most one of the two is given.
        rows_stay: each rank keeps its output rows, and what it makes of them goes to `gather`.
        timeout_s: longest wait for one exchange.

    Attributes:
        standardised: see `ForwardPass`.
        output_s: time rank 0 waited for the other ranks' output rows.
        over: whether every exchange of this pass has ended here, in both directions.
    """

    def __init__(
        self,
        plan: Plan,
        shape: ModelShape,
        transport: Transport,
        staging: Staging,
        *,
        real_BN: torch.Tensor | None = None,
        first_rows: int | None = None,
        last_rows: int | None = None,
        rows_stay: bool = False,
        timeout_s: float,
    ) -> None:
        self.output_s = 0.0
        self.over = False
        self._plan = plan
        self._shape = shape
        self._last = shape.blocks - 1
        self._rank = transport.rank
        self._counters = transport.counters
        self._exchange = Exchange(transport, staging, WIRE_DTYPES[plan.wire], timeout_s)
        self._real_BN = real_BN
        self._first_rows = first_rows
        self._last_rows = last_rows
        self._rows_stay = rows_stay
        self._pruned: tuple[torch.Tensor, slice] | None = None

    @override
    def enter(self, hidden_BND: torch.Tensor, standardise: Standardise) -> torch.Tensor:
        length = hidden_BND.shape[1]
        self._view = PartitionView(
            self._plan,
            self._rank,
            length,
            causal=self._shape.causal,
            real_BN=None if self._real_BN is None else self._real_BN.to(hidden_BND.device),
            device=hidden_BND.device,
        )
        needed = self._rows_for_model_head(length)
        self._needed = [_overlap(span, needed) for span in self._view.spans]
        self._idle_at_end = self._rank != 0 and not self._needed[self._rank].size
        self.standardised = self._view.clusters
        if not self._shape.rotary:
            rows_BND = self._rows(hidden_BND, standardise)
            self._input_payloads = self._view.payloads_of_input(rows_BND)
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
            self._post(serves, rows_BnD, judged_by=rows_BnD)
        if serves >= self._last and self._idle_at_end:
            self._end(hidden_BnD, [])
        return self._prune(hidden_BnD, rows_BnD) if index == self._last else hidden_BnD

    @override
    def context(self, index: int) -> torch.Tensor | None:
        if index <= self._plan.lag:
            received = self._input_payloads
        else:
            received = self._exchange.collect(index)
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
        self._post(index, torch.cat([key_BnE, value_BnE], dim=-1), judged_by=key_BnE)
        if index == self._last and self._idle_at_end:
            self._end(key_BGnd, [])
        received = self._exchange.collect(index)
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
        if self._rows_stay:
            return hidden_BnD
        own = hidden_BnD
        if self._pruned is None:
            own = hidden_BnD[:, _within(self._needed[self._rank], self._view.own)]
        if self._rank != 0:
            self._end(own, [0] if own.shape[1] else [])
        batch, _, width = hidden_BnD.shape
        shapes = {
            rank: (batch, span.size, width)
            for rank, span in enumerate(self._needed)
            if rank != 0 and span.size
        }
        return self._collected(own, shapes)

    def gather(self, own_BmD: torch.Tensor) -> torch.Tensor:
        """Return what all ranks made of the rows they kept, `(B, P * m, D)` by rank, on rank 0.

        Raises:
            PassComplete: this place is not rank 0; its part is done.
        """
        if self._rank != 0:
            self._end(own_BmD, [0])
        batch, rows, width = own_BmD.shape
        others = range(1, self._plan.size)
        return self._collected(own_BmD, dict.fromkeys(others, (batch, rows, width)))

    @property
    def own(self) -> Span:
        """The positions computed here."""
        return self._view.own

    @property
    def length(self) -> int:
        """All positions."""
        return self._view.spans[-1].stop

    def _collected(self, own: torch.Tensor, shapes: Mapping[int, Shape]) -> torch.Tensor:
        """Return own rows followed by those that come from `shapes`, and end the pass."""
        waited_s = self._counters.comm_s
        key = self._shape.blocks  # one after the last block's exchange
        self._exchange.post(key, own, [], shapes)
        others = self._exchange.collect(key)
        self.output_s = self._counters.comm_s - waited_s
        self._finish()
        return own if others is None else torch.cat([own, others], dim=1)

    def _rows(self, hidden_BnD: torch.Tensor, standardise: Standardise) -> torch.Tensor:
        """Return the form of a block's input that is averaged, and judged for similarity."""
        return standardise(hidden_BnD) if self.standardised else hidden_BnD

    def _post(self, key: int, rows_BnE: torch.Tensor, judged_by: torch.Tensor) -> None:
        """Send the listeners the means of own rows, and receive the sources'.

        Rows that are alike in `judged_by` are averaged together where means are of clusters.
        """
        batch, _, width = rows_BnE.shape
        shapes = {rank: self._view.payload_shape(rank, batch, width) for rank in self._view.sources}
        payload = rows_BnE
        if self._view.listeners:
            payload = self._view.payload(rows_BnE, self._view.groups(judged_by))
        self._exchange.post(key, payload, self._view.listeners, shapes)

    def _prune(self, hidden_BnD: torch.Tensor, rows_BnD: torch.Tensor) -> torch.Tensor:
        """Let only the rows the model head needs ask questions in the last block."""
        keep = _within(self._needed[self._rank], self._view.own)
        if self._shape.causal or keep == slice(0, self._view.own.size):
            return hidden_BnD
        self._pruned = (rows_BnD, keep)
        return hidden_BnD[:, keep]

    def _rows_for_model_head(self, length: int) -> Span:
        """Return the positions that the model head needs."""
        if self._last_rows is not None:
            return Span(max(0, length - self._last_rows), length)
        return Span(0, min(self._first_rows or length, length))

    def _end(self, output: torch.Tensor, send_to: Sequence[int]) -> NoReturn:
        """End a helper's part with the exchange of output rows, which may have none to send.

        It is posted in any case: a transport tells exchanges apart by their order, which must be
        the same on all ranks, also for the next request.
        """
        self._exchange.post(self._shape.blocks, output, send_to, {})
        self._finish()
        raise PassComplete

    def _finish(self) -> None:
        self._exchange.finish()
        self.over = True


def _overlap(span: Span, other: Span) -> Span:
    start = min(max(span.start, other.start), span.stop)
    return Span(start, max(start, min(span.stop, other.stop)))


def _within(part: Span, whole: Span) -> slice:
    """Return where `part` lies in rows counted from the start of `whole`."""
    return slice(part.start - whole.start, part.stop - whole.start)
