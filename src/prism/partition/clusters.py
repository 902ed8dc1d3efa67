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
        # On the CPU one sample after the other, so that each stays in the processor's cache.
        together = 1 if y_BnD.device.type == "cpu" else batch
        reals = repeat(None) if real_Bn is None else torch.split(real_Bn, together)
        pairs = zip(torch.split(y_BnD, together), reals, strict=False)
        owners = [farthest_first(y, groups, real) for y, real in pairs]
        return _pooling_of(torch.cat(owners), groups, real_Bn)


def farthest_first(y_BnD: torch.Tensor, groups: int, real_Bn: torch.Tensor | None) -> torch.Tensor:
    """Return the group `(B, n)` that each row joins, numbered in the order of their centres.

    Args:
        y_BnD: what similarity is judged by; in float32, whatever its dtype.
        groups: number of groups.
        real_Bn: True where a row is a real token: only those are centres.
    """
    y_BnD = y_BnD.float()
    length_Bn1 = torch.linalg.vector_norm(y_BnD, dim=-1, keepdim=True)
    u_BnD: torch.Tensor = y_BnD / length_Bn1.clamp(min=torch.finfo(torch.float32).tiny)
    batch, rows, _ = u_BnD.shape
    real_u_BnD = u_BnD if real_Bn is None else u_BnD * real_Bn[..., None]
    likeness_Bn = torch.matmul(u_BnD, real_u_BnD.sum(1)[..., None]).squeeze(-1)
    greatest_Bn = torch.full_like(likeness_Bn, -_INFINITE)
    if real_Bn is not None:
        likeness_Bn = likeness_Bn.masked_fill(~real_Bn, -_INFINITE)
        greatest_Bn = greatest_Bn.masked_fill(~real_Bn, _INFINITE)
    centre_B = likeness_Bn.argmax(-1)
    similarity_CBn = u_BnD.new_empty(groups, batch, rows)
    for similarity_Bn in similarity_CBn.unbind():
        _similarity_to(centre_B, u_BnD, similarity_Bn)
        torch.maximum(greatest_Bn, similarity_Bn, out=greatest_Bn)
        centre_B = greatest_Bn.argmin(-1)
    return similarity_CBn.argmax(0)


def _similarity_to(centre_B: torch.Tensor, u_BnD: torch.Tensor, out_Bn: torch.Tensor) -> None:
    if u_BnD.device.type == "cpu":
        # Reading an index is free here, and a batched product by vectors is not.
        for u_nD, centre, out_n in zip(u_BnD, centre_B.tolist(), out_Bn, strict=True):
            torch.mv(u_nD, u_nD[centre], out=out_n)
    else:
        sample_B = torch.arange(len(u_BnD), device=u_BnD.device)
        centre_BD1 = u_BnD[sample_B, centre_B][..., None]
        torch.matmul(u_BnD, centre_BD1, out=out_Bn[..., None])


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
