"""Keys and values survive the way into rows and back."""

import torch

from prism.partition.heads import join_heads, split_heads


def test_what_is_joined_is_split_again():
    key = torch.randn(2, 3, 5, 4)
    rows = join_heads(key)
    assert rows.shape == (2, 5, 12)
    assert torch.equal(rows[1, 2, 4:8], key[1, 1, 2])
    assert torch.equal(split_heads(rows, heads=3), key)


def test_averaging_rows_averages_every_head():
    key = torch.randn(1, 2, 4, 3)
    mean = split_heads(join_heads(key).mean(1, keepdim=True), heads=2)
    torch.testing.assert_close(mean, key.mean(2, keepdim=True))
