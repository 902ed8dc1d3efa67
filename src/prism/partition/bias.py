"""The additive logits that let a mean weigh as much as the tokens it stands for.

Attending to a mean repeated s times is the same as adding log(s) to its logit. The bias depends on
the request only: it is built once and reused in every block, in its smallest broadcastable shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

NEVER = float("-inf")


def count_bias(counts_BC: torch.Tensor) -> torch.Tensor:
    """Return log(count) for every mean, -inf for a mean of nothing; `(B, 1, 1, C)`."""
    return counts_BC.log()[:, None, None, :]


def own_bias(real_Bn: torch.Tensor | None, rows: int, causal: bool) -> torch.Tensor:
    """Return the bias of a partition's own keys: 0, or -inf where padded or later.

    Args:
        real_Bn: True where an own row is a real token; None when all are.
        rows: n, used when `real_Bn` is None.
        causal: whether a row attends only to itself and earlier rows.

    Returns:
        `(1 or B, 1, 1 or n, n)` in float32.
    """
    bias = torch.zeros(1, 1, 1, rows)
    if real_Bn is not None:
        bias = torch.zeros(real_Bn.shape, device=real_Bn.device)
        bias = bias.masked_fill(~real_Bn, NEVER)[:, None, None, :]
    if causal:
        later = torch.ones(rows, rows, dtype=torch.bool, device=bias.device).triu(1)
        bias = bias.masked_fill(later, NEVER)
    return bias


def join_bias(biases: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate biases along the keys, expanding batch and query dimensions only as needed."""
    batch = max(bias.shape[0] for bias in biases)
    queries = max(bias.shape[2] for bias in biases)
    return torch.cat([bias.expand(batch, 1, queries, bias.shape[3]) for bias in biases], dim=3)
