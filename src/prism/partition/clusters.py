"""Cluster Means: rows of a partition grouped by similarity, per sample and block.

Contiguous segments average whatever happens to stand side by side; similar rows lose less when they
are averaged. Groups are chosen on u = y / |y|, where y is what is averaged: a block's input after
the affine-free part of its first normalisation, or, in rotary families, the rotated keys of all
heads (judged by the input, a real language model loses several times as much: docs/method.md):

    first centre      the row most similar to the mean of u
    every next one    the row whose greatest similarity to the centres so far is smallest
    every row         joins the centre most similar to it; a tie: the earlier centre

Farthest first matters: what stands out (a class token, an attention sink) becomes a group of its
own. It costs one matrix-vector product per group and sample, and never waits for a GPU.
"""

from __future__ import annotations

from itertools import repeat

import torch

_INFINITE = float("inf")


def cluster_pooling(
    y_BnD: torch.Tensor, groups: int, real_Bn: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the averaging matrix of one partition and the counts behind each mean.

    The groups are constants: no gradient flows through the choice.

    Args:
        y_BnD: what similarity is judged by.
        groups: number of groups; as many as rows, or more, lets every row stand alone.
        real_Bn: True where a row is a real token; None when all are.

    Returns:
        `(pool_BCn, counts_BC)` in float32, as `means.pooling` does; C = `min(groups, n)`. A group
        without a real token gets an all-zero row and the count 0.
    """
    batch, rows, _ = y_BnD.shape
    with torch.no_grad():
        y_BnD = y_BnD.detach()
        if groups >= rows:
            every_row_Bn = torch.arange(rows, device=y_BnD.device).expand(batch, -1)
            return _pooling_of(every_row_Bn, rows, real_Bn)
        return _pooling_of(farthest_first(y_BnD, groups, real_Bn), groups, real_Bn)


def farthest_first(y_BnD: torch.Tensor, groups: int, real_Bn: torch.Tensor | None) -> torch.Tensor:
    """Return the group `(B, n)` that each row joins, numbered in the order of their centres.

    Args:
        y_BnD: what similarity is judged by; in float32, whatever its dtype.
        groups: number of groups.
        real_Bn: True where a row is a real token: only those are centres.
    """
    if y_BnD.device.type != "cpu":
        return owners_at_once(y_BnD, groups, real_Bn)
    reals = repeat(None) if real_Bn is None else real_Bn
    pairs = zip(y_BnD, reals, strict=False)
    return torch.stack([owners_of_one(y_nD, groups, real_n) for y_nD, real_n in pairs])


def owners_of_one(y_nD: torch.Tensor, groups: int, real_n: torch.Tensor | None) -> torch.Tensor:
    """Return the groups `(n,)` of one sample's rows.

    For the CPU, where reading an index costs nothing, a product by one vector is as fast as it can
    be, and a sample stays in the cache.
    """
    u_nD = _directions(y_nD)
    real_u_nD = u_nD if real_n is None else u_nD * real_n[:, None]
    likeness_n = torch.mv(u_nD, real_u_nD.sum(0))
    greatest_n = torch.full_like(likeness_n, -_INFINITE)
    if real_n is not None:
        likeness_n.masked_fill_(~real_n, -_INFINITE)
        greatest_n.masked_fill_(~real_n, _INFINITE)
    centre = int(likeness_n.argmax())
    similarity_Cn = u_nD.new_empty(groups, len(u_nD))
    for similarity_n in similarity_Cn.unbind():
        torch.mv(u_nD, u_nD[centre], out=similarity_n)
        torch.maximum(greatest_n, similarity_n, out=greatest_n)
        centre = int(greatest_n.argmin())
    return similarity_Cn.argmax(0)


def owners_at_once(y_BnD: torch.Tensor, groups: int, real_Bn: torch.Tensor | None) -> torch.Tensor:
    """Return the groups `(B, n)` of all samples' rows, the same as one by one.

    For a GPU, which is never waited for: no index is read.
    """
    u_BnD = _directions(y_BnD)
    real_u_BnD = u_BnD if real_Bn is None else u_BnD * real_Bn[..., None]
    likeness_Bn = torch.matmul(u_BnD, real_u_BnD.sum(1)[..., None]).squeeze(-1)
    greatest_Bn = torch.full_like(likeness_Bn, -_INFINITE)
    if real_Bn is not None:
        likeness_Bn = likeness_Bn.masked_fill(~real_Bn, -_INFINITE)
        greatest_Bn = greatest_Bn.masked_fill(~real_Bn, _INFINITE)
    centre_B = likeness_Bn.argmax(-1)
    sample_B = torch.arange(len(u_BnD), device=u_BnD.device)
    similarities = []
    for _ in range(groups):
        centre_BD1 = u_BnD[sample_B, centre_B][..., None]
        similarities.append(torch.matmul(u_BnD, centre_BD1).squeeze(-1))
        greatest_Bn = torch.maximum(greatest_Bn, similarities[-1])
        centre_B = greatest_Bn.argmin(-1)
    return torch.stack(similarities).argmax(0)


def _directions(y: torch.Tensor) -> torch.Tensor:
    """Return rows of length 1 in float32; a row of zeros stays one."""
    y = y.float()
    length = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    unit: torch.Tensor = y / length.clamp_(min=torch.finfo(torch.float32).tiny)
    return unit


def _pooling_of(
    owner_Bn: torch.Tensor, groups: int, real_Bn: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, rows = owner_Bn.shape
    member_BCn = torch.zeros(batch, groups, rows, device=owner_Bn.device)
    member_BCn.scatter_(1, owner_Bn[:, None], 1.0)
    if real_Bn is not None:
        member_BCn *= real_Bn[:, None]
    counts_BC = member_BCn.sum(-1)
    return member_BCn / counts_BC.clamp(min=1)[..., None], counts_BC
