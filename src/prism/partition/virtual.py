"""All partitions in one process: the arithmetic of a distributed run, differentiable.

Every row attends to the rows of its own partition and to the means of all others, expressed as one
attention over N own keys and the P * L means with a bias that hides what a row may not see. Used to
train and to evaluate plans without a cluster, and as the reference the distributed run must equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import pad
from typing_extensions import override

from prism.partition.bias import NEVER, count_bias, own_bias
from prism.partition.clusters import cluster_pooling
from prism.partition.forward_pass import ForwardPass, Standardise
from prism.partition.heads import join_heads, split_heads
from prism.partition.means import group_means, pooling


class VirtualPass(ForwardPass):
    """A `ForwardPass` in which all partitions are here.

    Args:
        sizes_for: from N to the segment sizes of every partition.
        full: every row is exchanged, and the model's own mask, with its windows, is kept.
        clusters: rows are averaged by similarity, in as many groups as there would be segments.
        lag: 0 or 1.
        wire: dtype exchanged values are rounded to.
        causal: whether rows attend only to earlier ones.
        rotary: whether keys and values are exchanged, after rotation.
        real_BN: True where a token is real; None when all are.
    """

    def __init__(
        self,
        sizes_for: Callable[[int], Sequence[Sequence[int]]],
        *,
        full: bool,
        clusters: bool,
        lag: int,
        wire: torch.dtype,
        causal: bool,
        rotary: bool,
        real_BN: torch.Tensor | None,
    ) -> None:
        self.standardised = clusters
        self._sizes_for = sizes_for
        self._full = full
        self._lag = lag
        self._wire = wire
        self._causal = causal
        self._rotary = rotary
        self._real_BN = real_BN
        self._payloads: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @override
    def enter(self, hidden_BND: torch.Tensor, standardise: Standardise) -> torch.Tensor:
        self._payloads = {}
        self._sizes = self._sizes_for(hidden_BND.shape[1])
        device = hidden_BND.device
        self._foreign_NN = _foreign(self._sizes, device)
        self._masked_NC = _masked(self._sizes, self._causal, device)
        own = own_bias(self._real_BN, len(self._foreign_NN), self._causal).to(device)
        self._own_bias = own.masked_fill(self._foreign_NN, NEVER)
        if not self.standardised:
            sizes = [size for partition in self._sizes for size in partition]
            self._segments = pooling(sizes, self._real_BN, device)
            self._bias = self._bias_with(self._segments[1])
        if not self._rotary:
            self._see(0, self._rows(hidden_BND, standardise))
        return hidden_BND

    @override
    def slice_positions(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        return x

    @override
    def before_block(
        self, index: int, hidden_BnD: torch.Tensor, standardise: Standardise
    ) -> torch.Tensor:
        if not self._rotary:
            self._see(index, self._rows(hidden_BnD, standardise))
            self._payloads.pop(index - 2, None)
        return hidden_BnD

    @override
    def context(self, index: int) -> torch.Tensor | None:
        means, counts = self._payloads[max(0, index - self._lag)]
        if self.standardised:
            self._bias = self._bias_with(counts)
        return means

    @override
    def keyed_context(
        self, index: int, key_BGnd: torch.Tensor, value_BGnd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        key_BnE, value_BnE = join_heads(key_BGnd), join_heads(value_BGnd)
        pool, counts = self._groups_by(key_BnE)
        if self.standardised:
            self._bias = self._bias_with(_rounded(counts, self._wire))
        means = [_rounded(group_means(x, pool), self._wire) for x in (key_BnE, value_BnE)]
        key, value = (split_heads(x, key_BGnd.shape[1]) for x in means)
        return key, value

    @override
    def replaces_own_keys(self, index: int) -> bool:
        return False

    @override
    def bias(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        if not self._full or mask is None:
            return self._bias
        foreign_NN = self._foreign_NN
        never = False if mask.dtype == torch.bool else NEVER
        own, others = mask.masked_fill(foreign_NN, never), mask.masked_fill(~foreign_NN, never)
        return torch.cat([own, others], dim=3)

    @override
    def leave(self, hidden_BnD: torch.Tensor) -> torch.Tensor:
        return hidden_BnD

    def _rows(self, hidden_BnD: torch.Tensor, standardise: Standardise) -> torch.Tensor:
        return standardise(hidden_BnD) if self.standardised else hidden_BnD

    def _see(self, index: int, rows_BND: torch.Tensor) -> None:
        """Keep what the partitions tell each other of a block's input."""
        pool, counts = self._groups_by(rows_BND)
        means = group_means(rows_BND, pool)
        self._payloads[index] = _rounded(means, self._wire), _rounded(counts, self._wire)

    def _groups_by(self, rows_BND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `(pool_BCN, counts_BC)` of all partitions."""
        if self.standardised:
            return _clusters(rows_BND, self._sizes, self._real_BN)
        return self._segments

    def _bias_with(self, counts_BC: torch.Tensor) -> torch.Tensor:
        """Return `(1 or B, 1, N, N + C)`: own partition's rows, and the visible others' means."""
        means = count_bias(counts_BC).masked_fill(self._masked_NC, NEVER)
        batch, length = max(self._own_bias.shape[0], means.shape[0]), means.shape[2]
        parts = [each.expand(batch, 1, length, -1) for each in (self._own_bias, means)]
        return torch.cat(parts, dim=3)


def _rounded(x: torch.Tensor, wire: torch.dtype) -> torch.Tensor:
    return x.to(wire).to(x.dtype)


def _clusters(
    rows_BND: torch.Tensor, sizes: Sequence[Sequence[int]], real_BN: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `(pool_BCN, counts_BC)` of all partitions, each grouped on its own."""
    batch, length, _ = rows_BND.shape
    pools, counts, start = [], [], 0
    for partition in sizes:
        stop = start + sum(partition)
        real = None if real_BN is None else real_BN[:, start:stop]
        pool, count = cluster_pooling(rows_BND[:, start:stop], len(partition), real)
        pools.append(pad(pool, (start, length - stop)))
        counts.append(count)
        start = stop
    return torch.cat(pools, dim=1), torch.cat(counts, dim=1)


def _foreign(sizes: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return `(N, N)`, True where two rows belong to different partitions."""
    partition_of_N = _partition_of([sum(partition) for partition in sizes], device)
    return partition_of_N[:, None] != partition_of_N[None, :]


def _partition_of(counts: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.repeat_interleave(torch.tensor(counts, device=device))


def _masked(sizes: Sequence[Sequence[int]], causal: bool, device: torch.device) -> torch.Tensor:
    """Return `(N, C)`, True where a row may not attend to a mean."""
    partition_of_N = _partition_of([sum(partition) for partition in sizes], device)
    partition_of_C = _partition_of([len(partition) for partition in sizes], device)
    if causal:
        return partition_of_N[:, None] <= partition_of_C[None, :]
    return partition_of_N[:, None] == partition_of_C[None, :]
