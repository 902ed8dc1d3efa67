"""Logits of means, padding and causality, in the smallest shape that holds them."""

import math

import pytest
import torch

from prism.partition.bias import count_bias, join_bias, own_bias

NEVER = -math.inf


def test_a_mean_weighs_as_the_tokens_it_stands_for():
    bias = count_bias(torch.tensor([[1.0, 4.0, 0.0]]))
    assert bias.shape == (1, 1, 1, 3)
    assert bias.flatten().tolist() == pytest.approx([0.0, math.log(4), NEVER])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_own_keys_are_hidden_where_padded_or_later(causal, padded):
    real = torch.tensor([[True, False, True], [True, True, True]])
    bias = own_bias(real if padded else None, 3, causal)
    assert bias.shape == (2 if padded else 1, 1, 3 if causal else 1, 3)
    for row in range(2):
        for query in range(3):
            for key in range(3):
                hidden = (padded and not real[row, key]) or (causal and key > query)
                value = bias[row % bias.shape[0], 0, query % bias.shape[2], key]
                assert value == (NEVER if hidden else 0.0)


def test_joining_expands_only_what_must_be():
    plain, counts = own_bias(None, 2, causal=False), count_bias(torch.ones(1, 3))
    assert join_bias([plain, counts]).shape == (1, 1, 1, 5)
    causal, batched = own_bias(None, 2, causal=True), count_bias(torch.tensor([[1.0], [2.0]]))
    joined = join_bias([causal, batched])
    assert joined.shape == (2, 1, 2, 3)
    assert joined[1, 0].flatten().tolist() == pytest.approx(
        [0.0, NEVER, math.log(2), 0.0, 0.0, math.log(2)]
    )
