"""Attention against a softmax written out."""

import math

import pytest
import torch

from prism.partition.attention import attend


def written_out(query, key, value, bias, scaling):
    batch, heads, rows, width = query.shape
    out = torch.zeros(batch, rows, heads, width)
    for b in range(batch):
        for h in range(heads):
            g = h // (heads // key.shape[1])
            logits = scaling * query[b, h] @ key[b, g].T
            if bias is not None:
                logits = logits + bias.expand(batch, heads, rows, key.shape[2])[b, h]
            weights = logits.exp()
            out[b, :, h] = weights / weights.sum(-1, keepdim=True) @ value[b, g]
    return out


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("scaling", [None, 1.0, 0.3])
@pytest.mark.parametrize("biased", [False, True])
def test_equals_a_softmax_written_out(key_heads, scaling, biased):
    query, key, value = random(2, 4, 3, 8), random(2, key_heads, 7, 8), random(2, key_heads, 7, 8)
    bias = random(2, 1, 1, 7) if biased else None
    out = attend(query, key, value, bias, scaling)
    assert out.is_contiguous()
    expected = written_out(query, key, value, bias, scaling or 1 / math.sqrt(8))
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)


def test_a_counted_mean_equals_its_key_repeated():
    query, key, value = random(1, 2, 3, 4), random(1, 2, 2, 4), random(1, 2, 2, 4)
    repeats = torch.tensor([1, 5])
    repeated = (x.repeat_interleave(repeats, dim=2) for x in (key, value))
    counted = attend(query, key, value, repeats.log()[None, None, None], None)
    torch.testing.assert_close(counted, attend(query, *repeated, None, None), atol=1e-6, rtol=1e-5)


def test_a_boolean_bias_says_who_may_be_seen():
    query, key, value = random(1, 2, 3, 4), random(1, 2, 5, 4), random(1, 2, 5, 4)
    seen = torch.tensor([True, False, True, False, True])
    out = attend(query, key, value, seen[None, None, None], None)
    alone = attend(query, key[:, :, seen], value[:, :, seen], None, None)
    torch.testing.assert_close(out, alone, atol=1e-6, rtol=1e-5)


def test_the_bias_takes_the_dtype_of_the_queries():
    x = random(1, 1, 2, 4).bfloat16()
    assert attend(x, x, x, torch.zeros(1, 1, 1, 2), None).dtype == torch.bfloat16
