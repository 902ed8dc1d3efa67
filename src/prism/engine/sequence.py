"""One partition of a sequence plan: own rows here, the others' rows over a transport.

The distributed `ForwardPass`. It reads as the algorithm does: on entering, cut the input and
compute block 0's context from it; before a block, post what the others need; inside attention, wait
for theirs at the last moment; on leaving, bring the rows the model head needs to rank 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from typing_extensions import override

from prism.engine.exchange import Exchange
from prism.engine.view import PartitionView
from prism.partition.forward_pass import ForwardPass, PassComplete
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
        timeout_s: longest wait for one exchange.

    Attributes:
        length: N, once entered.
        output_s: time rank 0 waited for the other ranks' output rows.
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
        timeout_s: float,
    ) -> None:
        self.length = 0
        self.output_s = 0.0
        self._plan = plan
        self._shape = shape
        self._rank = transport.rank
        self._counters = transport.counters
        self._exchange = Exchange(transport, staging, WIRE_DTYPES[plan.wire], timeout_s)
        self._real_BN = real_BN
        self._first_rows = first_rows
        self._last_rows = last_rows
        self._pruned: tuple[torch.Tensor, slice] | None = None

    @override
    def enter(self, hidden_BND: torch.Tensor) -> torch.Tensor:
        self.length = hidden_BND.shape[1]
        self._view = PartitionView(
            self._plan,
            self._rank,
            self.length,
            causal=self._shape.causal,
            real_BN=self._real_BN,
            device=hidden_BND.device,
        )
        needed = Span(0, min(self._first_rows or self.length, self.length))
        if self._last_rows is not None:
            needed = Span(max(0, self.length - self._last_rows), self.length)
        self._needed = [_overlap(span, needed) for span in self._view.spans]
        self._idle_at_end = self._rank != 0 and not self._needed[self._rank].size
        if not self._shape.rotary:
            self._input_context = self._view.context_of_input(hidden_BND)
        return hidden_BND[:, self._view.own.start : self._view.own.stop].contiguous()

    @override
    def slice_positions(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        return x.narrow(dim, self._view.own.start, self._view.own.size)

    @override
    def before_block(self, index: int, hidden_BnD: torch.Tensor) -> torch.Tensor:
        if self._shape.rotary:
            return hidden_BnD
        last = self._shape.blocks - 1
        serves = index + self._plan.lag  # the block whose attention will use these rows
        if serves <= last:
            payload = self._view.pool(hidden_BnD)
            batch, width = hidden_BnD.shape[0], hidden_BnD.shape[2]
            shapes = {r: (batch, self._view.rows_sent_by(r), width) for r in self._view.sources}
            self._exchange.post(serves, payload, self._view.listeners, shapes)
        if serves >= last and self._idle_at_end:
            self._end(hidden_BnD, [])
        return self._prune(hidden_BnD) if index == last else hidden_BnD

    def _prune(self, hidden_BnD: torch.Tensor) -> torch.Tensor:
        """Let only the rows the model head needs ask questions in the last block."""
        keep = _within(self._needed[self._rank], self._view.own)
        if self._shape.causal or keep == slice(0, self._view.own.size):
            return hidden_BnD
        self._pruned = (hidden_BnD, keep)
        return hidden_BnD[:, keep]

    @override
    def context(self, index: int) -> torch.Tensor | None:
        if index <= self._plan.lag:
            others = self._input_context
        else:
            others = self._exchange.collect(index, dim=1)
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
        pair = torch.stack([self._view.pool(key_BGnd), self._view.pool(value_BGnd)])
        shapes = {
            rank: (*pair.shape[:3], self._view.rows_sent_by(rank), pair.shape[4])
            for rank in self._view.sources
        }
        self._exchange.post(index, pair, self._view.listeners, shapes)
        if index == self._shape.blocks - 1 and self._idle_at_end:
            self._end(pair, [])
        others = self._exchange.collect(index, dim=3)
        return None if others is None else (others[0], others[1])

    @override
    def bias(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        bias = self._view.bias(mask)
        if bias is None or self._pruned is None or bias.shape[2] == 1:
            return bias
        return bias[:, :, self._pruned[1]]

    @override
    def leave(self, hidden_BnD: torch.Tensor) -> torch.Tensor:
        waited_s = self._counters.comm_s
        own = hidden_BnD
        if self._pruned is None:
            own = hidden_BnD[:, _within(self._needed[self._rank], self._view.own)]
        batch, _, width = hidden_BnD.shape
        if self._rank != 0:
            self._end(own, [0] if own.shape[1] else [])
        shapes = {
            rank: (batch, span.size, width)
            for rank, span in enumerate(self._needed)
            if rank != 0 and span.size
        }
        key = self._shape.blocks  # one after the last block's exchange
        self._exchange.post(key, own, [], shapes)
        others = self._exchange.collect(key, dim=1)
        self.output_s = self._counters.comm_s - waited_s
        return own if others is None else torch.cat([own, others], dim=1)

    def _end(self, output: torch.Tensor, send_to: Sequence[int]) -> NoReturn:
        """End a helper's part with the exchange of output rows, which may have none to send.

        It is posted in any case: a transport tells exchanges apart by their order, which must be
        the same on all ranks, also for the next request.
        """
        self._exchange.post(self._shape.blocks, output, send_to, {})
        self._exchange.finish()
        raise PassComplete


def _overlap(span: Span, other: Span) -> Span:
    start = min(max(span.start, other.start), span.stop)
    return Span(start, max(start, min(span.stop, other.stop)))


def _within(part: Span, whole: Span) -> slice:
    """Return where `part` lies in rows counted from the start of `whole`."""
    return slice(part.start - whole.start, part.stop - whole.start)
