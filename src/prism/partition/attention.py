"""Attention of a partition's own queries over its own keys and the context of the others."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def attend(
    query_BHnd: torch.Tensor,
    key_BGkd: torch.Tensor,
    value_BGkd: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float | None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Return softmax(q.k * scaling + bias) v, heads last.

    Args:
        query_BHnd: own queries.
        key_BGkd: own keys, then the context's; G key heads, each serving H / G query heads.
        value_BGkd: values in the same order.
        bias: float (added) or bool (True = may attend), broadcastable to `(B, H, n, k)`; or None.
        scaling: factor on the logits; None = 1 / sqrt(d).
        dropout: probability, 0 outside training.

    Returns:
        `(B, n, H, d)`, contiguous, as transformers' attention functions return it.
    """
    if bias is not None and bias.dtype.is_floating_point and bias.dtype != query_BHnd.dtype:
        bias = bias.to(query_BHnd.dtype)
    out_BHnd = scaled_dot_product_attention(
        query_BHnd,
        key_BGkd,
        value_BGkd,
        attn_mask=bias,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=query_BHnd.shape[1] != key_BGkd.shape[1],
    )
    return out_BHnd.transpose(1, 2).contiguous()
