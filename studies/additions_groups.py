"""Other ways to choose the groups of Cluster Means, tried beside farthest first."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize, one_hot

_LEAST = 0.02  # keeps the weight of the last row finite


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
