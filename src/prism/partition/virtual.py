"""All partitions in one process: the arithmetic of a distributed run, differentiable.

Every row attends to the rows of its own partition and to the means of all others, expressed as one
attention over N own keys and the P * L means with a bias that hides what a row may not see. Used to
train and to evaluate plans without a cluster, and as the reference the distributed run must equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from typing_extensions import override

from prism.partition.bias import NEVER, count_bias, own_bias
from prism.partition.forward_pass import ForwardPass
from prism.partition.means import pooling, segment_means


class VirtualPass(ForwardPass):
    """A `ForwardPass` in which all partitions are here.

    Args:
        sizes_for: from N to the segment sizes of every partition.
        full: every row is exchanged, and the model's own mask, with its windows, is kept.
        lag: 0 or 1.
        wire: dtype exchanged values are rounded to.
        causal: whether rows attend only to earlier ones.
        rotary: whether context is exchanged as rotated keys and values.
        real_BN: True where a token is real; None when all are.
    """

    def __init__(
        self,
        sizes_for: Callable[[int], Sequence[Sequence[int]]],
        *,
        full: bool,
        lag: int,
        wire: torch.dtype,
        causal: bool,
        real_BN: torch.Tensor | None,
    ) -> None:
        self._sizes_for = sizes_for
        self._full = full
        self._lag = lag
        self._wire = wire
        self._causal = causal
        self._real_BN = real_BN
        self._means: dict[int, torch.Tensor] = {}

    @override
    def enter(self, hidden_BND: torch.Tensor) -> torch.Tensor:
        sizes = self._sizes_for(hidden_BND.shape[1])
        self._pool, counts_BC = _block_diagonal_pooling(sizes, self._real_BN, hidden_BND.device)
        self._foreign_NN = _foreign(sizes, hidden_BND.device)
        self._bias = _partitioned_bias(
            sizes, counts_BC, self._foreign_NN, self._real_BN, self._causal
        )
        self._means = {0: segment_means(hidden_BND, self._pool)}
        return hidden_BND

    @override
    def slice_positions(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        return x

    @override
    def before_block(self, index: int, hidden_BnD: torch.Tensor) -> torch.Tensor:
        means = segment_means(hidden_BnD, self._pool)
        self._means[index] = means.to(self._wire).to(means.dtype)
        self._means.pop(index - 2, None)
        return hidden_BnD

    @override
    def context(self, index: int) -> torch.Tensor | None:
        return self._means[max(0, index - self._lag)]

    @override
    def keyed_context(
        self, index: int, key_BGnd: torch.Tensor, value_BGnd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        key, value = (segment_means(x, self._pool) for x in (key_BGnd, value_BGnd))
        return key.to(self._wire).to(key.dtype), value.to(self._wire).to(value.dtype)

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


def _block_diagonal_pooling(
    sizes: Sequence[Sequence[int]], real_BN: torch.Tensor | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    return pooling([size for partition in sizes for size in partition], real_BN, device)


def _foreign(sizes: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return `(N, N)`, True where two rows belong to different partitions."""
    partition_of_N = _partition_of([sum(partition) for partition in sizes], device)
    return partition_of_N[:, None] != partition_of_N[None, :]


def _partition_of(counts: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.repeat_interleave(torch.tensor(counts, device=device))


def _partitioned_bias(
    sizes: Sequence[Sequence[int]],
    counts_BC: torch.Tensor,
    foreign_NN: torch.Tensor,
    real_BN: torch.Tensor | None,
    causal: bool,
) -> torch.Tensor:
    """Return `(1 or B, 1, N, N + C)`: own partition's rows, and the means of the visible others."""
    device = counts_BC.device
    partition_of_N = _partition_of([sum(partition) for partition in sizes], device)
    partition_of_C = _partition_of([len(partition) for partition in sizes], device)
    hidden_NC = partition_of_N[:, None] == partition_of_C[None, :]
    if causal:
        hidden_NC = partition_of_N[:, None] <= partition_of_C[None, :]
    length = len(partition_of_N)
    own = own_bias(real_BN, length, causal).to(device).masked_fill(foreign_NN, NEVER)
    means = count_bias(counts_BC).masked_fill(hidden_NC, NEVER)
    batch = max(own.shape[0], means.shape[0])
    return torch.cat([own.expand(batch, 1, length, -1), means.expand(batch, 1, length, -1)], dim=3)
