"""Keys and values as one row per position, the form in which they are averaged and exchanged."""

from __future__ import annotations

import torch


def join_heads(x_BGnd: torch.Tensor) -> torch.Tensor:
    """Return rows `(B, n, G * d)` of all heads."""
    return x_BGnd.transpose(1, 2).flatten(2)


def split_heads(rows_BnE: torch.Tensor, heads: int) -> torch.Tensor:
    """Return `(B, G, n, d)` of what `join_heads` joined."""
    batch, rows, _ = rows_BnE.shape
    return rows_BnE.reshape(batch, rows, heads, -1).transpose(1, 2)
