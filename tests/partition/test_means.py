"""Segment means against explicit loops."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from prism.partition.means import group_means, join_counts, pooling, split_counts


@st.composite
def partitions(draw):
    """Sizes of segments, and which rows of a batch are real tokens, or None."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    rows = sum(sizes)
    batch = draw(st.integers(1, 3))
    if draw(st.booleans()):
        return sizes, batch, None
    flags = st.lists(st.booleans(), min_size=rows, max_size=rows)
    return sizes, batch, torch.tensor([draw(flags) for _ in range(batch)])


def members(sizes, real, row):
    """Return the real positions of every segment, by counting."""
    found, start = [], 0
    for size in sizes:
        inside = range(start, start + size)
        found.append([i for i in inside if real is None or bool(real[row, i])])
        start += size
    return found


@given(partitions())
def test_pooling_averages_real_rows_and_counts_them(partition):
    sizes, batch, real = partition
    x = torch.randn(batch, sum(sizes), 3)
    pool, counts = pooling(sizes, real)
    means = group_means(x, pool)
    assert means.shape == (batch, len(sizes), 3)
    for row in range(batch):
        for segment, inside in enumerate(members(sizes, real, row)):
            expected = x[row, inside].mean(0) if inside else torch.zeros(3)
            torch.testing.assert_close(means[row, segment], expected, atol=1e-6, rtol=1e-5)
            assert counts[0 if real is None else row, segment] == len(inside)


def test_counts_travel_beside_their_means():
    means, counts = torch.randn(2, 3, 4), torch.tensor([[1.0, 5, 0], [2048, 1, 1]])
    rows = join_counts(means.half(), counts)
    assert rows.shape == (2, 3, 5) and rows.dtype == torch.float16
    back, same = split_counts(rows)
    assert torch.equal(back, means.half()) and torch.equal(same, counts)


def test_without_padding_one_matrix_serves_the_batch():
    pool, counts = pooling((2, 1), None)
    assert pool.tolist() == [[[0.5, 0.5, 0], [0, 0, 1]]]
    assert counts.tolist() == [[2, 1]]


def test_means_of_half_precision_rows_are_taken_in_float32():
    # In float16 the sum 4096 * 64 would overflow, and 2048 + 1 is 2048.
    x = torch.full((1, 4096, 1), 64.0, dtype=torch.float16)
    x[0, 0] = 2048
    pool, _ = pooling((4096,), None)
    mean = group_means(x, pool)
    assert mean.dtype == torch.float16
    assert mean.item() == torch.tensor((4095 * 64 + 2048) / 4096, dtype=torch.float16).item()


def test_padding_with_garbage_does_not_reach_a_mean():
    x = torch.tensor([[[1.0], [3.0], [1e30]]])
    pool, _ = pooling((3,), torch.tensor([[True, True, False]]))
    assert group_means(x, pool).item() == 2.0
