"""What one rank of a sequence plan sees of a request: its rows, the others' means, the bias."""

from __future__ import annotations

import torch

from prism.partition.bias import count_bias, join_bias, own_bias
from prism.partition.means import pooling, segment_means
from prism.partition.spans import Span, segment_sizes, spans
from prism.plan import Plan


class PartitionView:
    """The geometry of one request as seen from one rank.

    Args:
        plan: the sequence plan.
        rank: this node's partition.
        length: N, positions of the request.
        causal: whether rows attend only to earlier ones.
        real_BN: True where a token is real; None when all are.
        device: where the model lives.

    Attributes:
        spans: positions of every rank.
        own: positions of this rank.
        sources: ranks whose rows this one attends to.
        listeners: ranks that attend to this one's rows.
    """

    def __init__(
        self,
        plan: Plan,
        rank: int,
        length: int,
        *,
        causal: bool,
        real_BN: torch.Tensor | None,
        device: torch.device,
    ) -> None:
        self.spans = spans(length, plan.size, plan.shares)
        self.own = self.spans[rank]
        others = [other for other in range(plan.size) if other != rank]
        self.sources = [other for other in others if not causal or other < rank]
        self.listeners = [other for other in others if not causal or other > rank]
        self._rank = rank
        self._full = plan.means is None
        self._sizes = [segment_sizes(span.size, plan.means) for span in self.spans]
        self._pools: dict[int, torch.Tensor] = {}
        self._masks: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        if not self._full:
            self._prepare_means(causal, real_BN, device)

    def _prepare_means(
        self, causal: bool, real_BN: torch.Tensor | None, device: torch.device
    ) -> None:
        def real(span: Span) -> torch.Tensor | None:
            return None if real_BN is None else real_BN[:, span.start : span.stop]

        biases = [own_bias(real(self.own), self.own.size, causal).to(device)]
        for rank in sorted([self._rank, *self.sources]):
            self._pools[rank], counts = pooling(self._sizes[rank], real(self.spans[rank]), device)
            if rank != self._rank:
                biases.append(count_bias(counts))
        self._bias = join_bias(biases)

    def rows_sent_by(self, rank: int) -> int:
        """Return how many rows (means) a rank sends per exchange."""
        return len(self._sizes[rank])

    def pool(self, rows: torch.Tensor, rank: int | None = None) -> torch.Tensor:
        """Return what a rank (default: this one) sends of its rows: their means, or all of them."""
        return (
            rows
            if self._full
            else segment_means(rows, self._pools[self._rank if rank is None else rank])
        )

    def context_of_input(self, hidden_BND: torch.Tensor) -> torch.Tensor | None:
        """Return what the sources would send for block 0, whose whole input every node has."""
        if not self.sources:
            return None
        return torch.cat(
            [
                self.pool(hidden_BND[:, self.spans[rank].start : self.spans[rank].stop], rank)
                for rank in self.sources
            ],
            dim=1,
        )

    def bias(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Return the bias of own rows over [own keys; context].

        Full exchange translates the model's own mask over all positions, and so keeps windows,
        padding and causality exactly; means use the bias prepared from padding and counts.
        """
        if not self._full:
            return self._bias
        if mask is None:
            return None
        # One entry per distinct mask: models with sliding windows use two. The mask is kept so
        # that its id is not given to another one.
        if id(mask) not in self._masks:
            rows = mask[..., self.own.start : self.own.stop, :]
            columns = [self.own, *(self.spans[rank] for rank in self.sources)]
            joined = torch.cat([rows[..., span.start : span.stop] for span in columns], dim=-1)
            self._masks[id(mask)] = (mask, joined)
        return self._masks[id(mask)][1]
