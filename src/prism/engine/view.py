"""What one rank of a sequence plan sees of a request: its rows, the others' means, the bias."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from prism.partition.bias import count_bias, join_bias, own_bias
from prism.partition.clusters import cluster_pooling
from prism.partition.means import group_means, join_counts, pooling, split_counts
from prism.partition.senders import sources_of
from prism.partition.spans import segment_sizes, spans
from prism.plan import Plan

Groups = tuple[torch.Tensor, torch.Tensor]  # (pool_BCn, counts_BC)


class PartitionView:
    """The geometry of one request as seen from one rank.

    What ranks exchange are rows: all of a partition's, the means of its segments, or the means of
    its clusters, each with its count as one more column, since only the sender knows it.

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
        clusters: whether means are of clusters.
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
        self.sources = sources_of(rank, plan, causal)
        self.listeners = [other for other in others if not causal or other > rank]
        self.clusters = plan.grouping == "clusters"
        self._rank = rank
        self._full = plan.means is None
        self._real_BN = real_BN
        self._sizes = [segment_sizes(span.size, plan.means) for span in self.spans]
        self._masks: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        if self._full:
            return
        self._own_bias = self._bias = own_bias(self._real(rank), self.own.size, causal).to(device)
        if not self.clusters:
            self._segments = {
                each: pooling(self._sizes[each], self._real(each), device)
                for each in [rank, *self.sources]
            }
            self._bias = self._bias_with([self._segments[each][1] for each in self.sources])

    def groups(self, rows_BnD: torch.Tensor, rank: int | None = None) -> Groups | None:
        """Return which rows of a rank (default: this one) are averaged together in one block.

        Args:
            rows_BnD: the rank's; what clusters are chosen by.
            rank: whose they are.

        Returns:
            The averaging matrix and the counts behind its means; None: every row stands alone.
        """
        rank = self._rank if rank is None else rank
        if self.clusters:
            return cluster_pooling(rows_BnD, len(self._sizes[rank]), self._real(rank))
        return None if self._full else self._segments[rank]

    def payload(self, rows_BnE: torch.Tensor, groups: Groups | None) -> torch.Tensor:
        """Return what is sent of rows."""
        if groups is None:
            return rows_BnE
        pool, counts = groups
        means = group_means(rows_BnE, pool)
        return join_counts(means, counts) if self.clusters else means

    def payload_shape(self, rank: int, batch: int, width: int) -> tuple[int, int, int]:
        """Return the shape of what a rank sends of rows of `width` values."""
        return batch, len(self._sizes[rank]), width + self.clusters

    def take(self, received_BCE: torch.Tensor) -> torch.Tensor:
        """Return the received rows alone; `bias` follows their counts from now on."""
        if not self.clusters:
            return received_BCE
        rows, counts = split_counts(received_BCE)
        self._bias = self._bias_with([counts])
        return rows

    def payloads_of_input(
        self, rows_BND: torch.Tensor, ranks: Iterable[int]
    ) -> dict[int, torch.Tensor]:
        """Return what each of some ranks would send of rows that are all here."""
        payloads = {}
        for rank in ranks:
            rows = rows_BND[:, self.spans[rank].start : self.spans[rank].stop]
            payloads[rank] = self.payload(rows, self.groups(rows, rank))
        return payloads

    def bias(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Return the bias of own rows over [own keys; context].

        Full exchange translates the model's own mask over all positions, and so keeps windows,
        padding and causality exactly; means use padding and counts.
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

    def _real(self, rank: int) -> torch.Tensor | None:
        span = self.spans[rank]
        return None if self._real_BN is None else self._real_BN[:, span.start : span.stop]

    def _bias_with(self, counts: list[torch.Tensor]) -> torch.Tensor:
        return join_bias([self._own_bias, *map(count_bias, counts)])
