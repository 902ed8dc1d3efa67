"""Means: what a partition tells the others about its rows.

A group of s real (unpadded) rows is represented by their mean and the count s. Averaging is one
small matrix product, so that unequal groups and padding cost no branch. Groups are segments
(`pooling`, once per request) or clusters (`clusters.cluster_pooling`, once per block); the counts
of clusters travel beside their means, since only the sender knows them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def pooling(
    sizes: Sequence[int], real_Bn: torch.Tensor | None, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the averaging matrix of one partition and the counts behind each mean.

    Args:
        sizes: rows of each of the L segments, in order; they sum to n.
        real_Bn: True where a row is a real token; None when all are.
        device: where the result lives, when `real_Bn` does not say.

    Returns:
        `(pool_BLn, counts_BL)` in float32, with B = 1 when there is no padding. A segment without a
        real token gets an all-zero row and the count 0.
    """
    device = real_Bn.device if real_Bn is not None else device
    segment_of_n = torch.repeat_interleave(torch.tensor(tuple(sizes), device=device))
    member_1Ln = (torch.arange(len(sizes), device=device)[:, None] == segment_of_n)[None].float()
    member_BLn = member_1Ln if real_Bn is None else member_1Ln * real_Bn[:, None, :]
    counts_BL = member_BLn.sum(-1)
    return member_BLn / counts_BL.clamp(min=1)[..., None], counts_BL


def group_means(x: torch.Tensor, pool_BLn: torch.Tensor) -> torch.Tensor:
    """Average rows by group, in float32.

    Args:
        x: `(B, n, D)`.
        pool_BLn: the averaging matrix of `pooling`, or of `clusters.cluster_pooling`.

    Returns:
        `(B, L, D)` in the dtype of `x`.
    """
    return torch.matmul(pool_BLn, x.float()).to(x.dtype)


def join_counts(means_BCE: torch.Tensor, counts_BC: torch.Tensor) -> torch.Tensor:
    """Return means with their counts as one more column, as they travel."""
    return torch.cat([means_BCE, counts_BC[..., None].to(means_BCE.dtype)], dim=-1)


def split_counts(rows_BCE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the means and their counts (float32) of what `join_counts` joined."""
    return rows_BCE[..., :-1], rows_BCE[..., -1].float()
