"""Keys and values survive the way into rows and back."""

import torch

from prism.partition.heads import join_heads, split_heads


def test_what_is_joined_is_split_again():
    key, value = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    rows = join_heads(key, value)
    assert rows.shape == (2, 5, 24)
    assert torch.equal(rows[1, 2, :4], key[1, 0, 2]) and torch.equal(
        rows[1, 2, 12:16], value[1, 0, 2]
    )
    again = split_heads(rows, heads=3)
    assert torch.equal(again[0], key) and torch.equal(again[1], value)


def test_averaging_rows_averages_every_head():
    key, value = torch.randn(1, 2, 4, 3), torch.randn(1, 2, 4, 3)
    mean_key, mean_value = split_heads(join_heads(key, value).mean(1, keepdim=True), heads=2)
    torch.testing.assert_close(mean_key, key.mean(2, keepdim=True))
    torch.testing.assert_close(mean_value, value.mean(2, keepdim=True))
