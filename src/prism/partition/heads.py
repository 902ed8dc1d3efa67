"""Keys and values as one row per position, the form in which they are averaged and exchanged."""

from __future__ import annotations

import torch


def join_heads(key_BGnd: torch.Tensor, value_BGnd: torch.Tensor) -> torch.Tensor:
    """Return rows `(B, n, 2 * G * d)`: all heads' keys, then all heads' values."""
    rows = [x.transpose(1, 2).flatten(2) for x in (key_BGnd, value_BGnd)]
    return torch.cat(rows, dim=-1)


def split_heads(rows_BCE: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the keys and the values `(B, G, C, d)` of what `join_heads` joined."""
    batch, rows, _ = rows_BCE.shape
    key, value = rows_BCE.reshape(batch, rows, 2, heads, -1).permute(2, 0, 3, 1, 4)
    return key, value
