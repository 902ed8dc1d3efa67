"""How an addition to the means chooses the groups of a partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import normalize, one_hot

from prism.partition.clusters import farthest_first
from prism.partition.spans import segment_sizes

_LEAST = 0.02  # keeps the weight of the last row finite


@dataclass(frozen=True)
class Additions:
    """How rows are grouped and what is added to their means; the defaults add nothing.

    Attributes:
        grouping: contiguous segments (the paper's), or clusters.
        judged_by: what makes rows of a cluster similar: the block's input after the affine-free
            part of its normalisation, or the keys of all heads.
        sink_alone: position 0 is a group of its own.
        last_alone: so many last rows of each partition are groups of their own.
        end_weight: the nearer a row is to the partition's end, the more its distance from the
            centres counts; 0 = all count alike.
        refined: after choosing, one Lloyd step: each row joins the most similar group mean.
        kept_blocks: groups serve so many blocks.
        key_variance: half the variance of a group's logits is added to its mean's logit.
        lag: a block attends to the means of the previous block's input.
        fresh_last_block: the last block does not lag.
        class_copies: each partition holds a class token of its own; none goes into means.
    """

    grouping: Literal["segments", "clusters"] = "clusters"
    judged_by: Literal["input", "keys"] = "input"
    sink_alone: bool = False
    last_alone: int = 0
    end_weight: float = 0.0
    refined: bool = False
    kept_blocks: int = 1
    key_variance: bool = False
    lag: int = 0
    fresh_last_block: bool = False
    class_copies: bool = False

    def __post_init__(self) -> None:
        if self.lag and (self.judged_by == "keys" or self.key_variance):
            raise ValueError("with lag the keys of the previous block are needed, and are gone")


def owners_of_part(
    additions: Additions,
    means: int,
    y_BnD: torch.Tensor,
    real_Bn: torch.Tensor,
    source: Sequence[int],
) -> torch.Tensor:
    """Return the group `(B, n)` of each row of one partition.

    Args:
        additions: the options.
        means: number of groups.
        y_BnD: what similarity is judged by.
        real_Bn: True where a row is a real token; what the others are given means nothing.
        source: position of each row in the whole sequence; with `class_copies` the row of
            position 0 is given a group that means nothing, too.
    """
    rows = len(source)
    alone = list(range(rows - additions.last_alone, rows))
    if additions.sink_alone and source[0] == 0:
        alone = [0, *alone]
    copies = [0] if additions.class_copies and source[0] == 0 else []
    rest = [row for row in range(rows) if row not in (*alone, *copies)]
    owner_Bn = torch.zeros(y_BnD.shape[:2], dtype=torch.long)
    owner_Bn[:, alone] = torch.arange(len(alone))
    groups = means - len(alone)
    if additions.grouping == "segments" or groups >= len(rest):
        sizes = segment_sizes(len(rest), groups)
        owner_Bn[:, rest] = len(alone) + torch.repeat_interleave(torch.tensor(sizes))
        return owner_Bn
    y_BnD, real_Bn = y_BnD[:, rest], real_Bn[:, rest]
    if additions.end_weight:
        to_end_n = 1 - torch.tensor(rest) / rows
        chosen_Bn = centres_towards_the_end(y_BnD, groups, real_Bn, to_end_n, additions.end_weight)
    else:
        chosen_Bn = farthest_first(y_BnD, groups, real_Bn)
    if additions.refined:
        chosen_Bn = refined(chosen_Bn, y_BnD, groups, real_Bn)
    owner_Bn[:, rest] = len(alone) + chosen_Bn
    return owner_Bn


def centres_towards_the_end(
    y_BnD: torch.Tensor,
    groups: int,
    real_Bn: torch.Tensor,
    to_end_n: torch.Tensor,
    power: float,
) -> torch.Tensor:
    """Return the group `(B, n)` of each row; rows near the end become centres sooner.

    Farthest first, but the distance 1 - similarity of a row to its nearest centre counts
    `(to_end + 0.02) ** -power` times; power 0 is plain farthest first.

    Args:
        y_BnD: what similarity is judged by.
        groups: number of groups, fewer than rows.
        real_Bn: True where a row is a real token: only those are centres.
        to_end_n: distance of each row from the partition's end, as a share of it; 1 = first row.
        power: of the weight.
    """
    u_BnD = normalize(y_BnD.float(), dim=-1)
    similarity_Bnn = u_BnD @ u_BnD.mT
    weight_n = (to_end_n + _LEAST) ** -power
    sample_B = torch.arange(len(u_BnD))
    likeness_Bn = (similarity_Bnn * real_Bn[:, None, :]).sum(-1)
    centre_B = likeness_Bn.masked_fill(~real_Bn, -torch.inf).argmax(-1)
    to_centres = [similarity_Bnn[sample_B, centre_B]]
    for _ in range(groups - 1):
        greatest_Bn = torch.stack(to_centres).amax(0)
        distance_Bn = (1 - greatest_Bn) * weight_n
        centre_B = distance_Bn.masked_fill(~real_Bn, -torch.inf).argmax(-1)
        to_centres.append(similarity_Bnn[sample_B, centre_B])
    return torch.stack(to_centres).argmax(0)


def refined(
    owner_Bn: torch.Tensor, y_BnD: torch.Tensor, groups: int, real_Bn: torch.Tensor
) -> torch.Tensor:
    """Return the groups after one Lloyd step: each row joins the most similar mean direction."""
    u_BnD = normalize(y_BnD.float(), dim=-1)
    member_BCn = (one_hot(owner_Bn, groups) * real_Bn[..., None]).mT.float()
    centre_BCD = normalize(member_BCn @ u_BnD, dim=-1)
    # The sum behind an empty group's centre is zero: nobody may join it.
    empty_BC = member_BCn.sum(-1) == 0
    similarity_BnC = (u_BnD @ centre_BCD.mT).masked_fill(empty_BC[:, None], -torch.inf)
    return similarity_BnC.argmax(-1)
