"""Clusters against explicit loops: farthest first, ties to the earlier, padding left out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism.partition.clusters import cluster_pooling, farthest_first, owners_at_once
from prism.partition.means import group_means


@st.composite
def partitions(draw):
    """Rows on a coarse grid, so that many similarities are equal or far apart; groups; padding."""
    batch, rows = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    seed = draw(st.integers(0, 999))
    y = torch.randn(batch, rows, 6, generator=torch.Generator().manual_seed(seed))
    real = None
    if draw(st.booleans()):
        flags = st.lists(st.booleans(), min_size=rows, max_size=rows)
        real = torch.tensor([draw(flags) for _ in range(batch)])
    return y, draw(st.integers(1, rows + 2)), real


def by_loops(y_nD, members, count):
    """Return the groups of one sample as lists of positions."""
    u = (y_nD / y_nD.norm(dim=-1, keepdim=True)).double()
    middle = sum(u[i] for i in members)
    centres = [max(members, key=lambda i: float(u[i] @ middle))]
    while len(centres) < count:
        centres.append(min(members, key=lambda i: max(float(u[i] @ u[c]) for c in centres)))
    groups = [[] for _ in centres]
    for i in members:
        alike = [float(u[i] @ u[c]) for c in centres]
        groups[alike.index(max(alike))].append(i)
    return sorted(group for group in groups if group)


@given(partitions())
def test_groups_equal_explicit_loops(partition):
    y, count, real = partition
    pool, counts = cluster_pooling(y, count, real)
    batch, rows, _ = y.shape
    assert pool.shape == (batch, min(count, rows), rows) and counts.shape == pool.shape[:2]
    for sample in range(batch):
        members = [i for i in range(rows) if real is None or bool(real[sample, i])]
        found = [row.nonzero().flatten().tolist() for row in pool[sample]]
        if count < rows and members:
            expected = by_loops(y[sample], members, min(count, len(members)))
            assert sorted(group for group in found if group) == expected
        assert sorted(sum(found, [])) == members
        assert counts[sample].tolist() == [len(group) for group in found]
        means = group_means(y, pool)[sample]
        for mean, group in zip(means, found, strict=True):
            wanted = y[sample, group].mean(0) if group else torch.zeros(6)
            torch.testing.assert_close(mean, wanted)


@given(partitions())
def test_all_samples_at_once_are_grouped_as_one_by_one(partition):
    y, count, real = partition
    at_once, one_by_one = owners_at_once(y, count, real), farthest_first(y, count, real)
    counted = torch.ones_like(at_once, dtype=torch.bool) if real is None else real
    # Two rows are equally like their mean: which comes first is rounding, who is together is not.
    for one, other, rows in zip(at_once, one_by_one, counted, strict=True):
        one, other = one[rows], other[rows]
        assert torch.equal(one[:, None] == one, other[:, None] == other)


def test_what_stands_out_is_a_group_of_its_own():
    y = torch.randn(1, 20, 8) * 0.1 + torch.ones(8)
    y[0, 7] = -torch.ones(8)
    groups = farthest_first(y, 2, None)[0]
    assert (groups == groups[7]).sum() == 1


def test_equal_rows_join_the_earlier_centre_and_leave_empty_groups():
    pool, counts = cluster_pooling(torch.ones(1, 5, 3), 3, None)
    assert counts.tolist() == [[5, 0, 0]]
    assert pool[0, 1:].abs().sum() == 0


def test_a_row_of_zeros_is_like_nothing_and_harms_nothing():
    y = torch.randn(1, 6, 4)
    y[0, 2] = 0
    pool, counts = cluster_pooling(y, 3, None)
    assert torch.isfinite(pool).all() and counts.sum() == 6


def test_only_directions_count():
    y = torch.randn(2, 12, 5)
    scaled = y * torch.rand(2, 12, 1).add(0.5)
    assert torch.equal(farthest_first(y, 4, None), farthest_first(scaled, 4, None))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_compared_in_float32(dtype):
    y = torch.randn(2, 12, 5).to(dtype)
    assert torch.equal(farthest_first(y, 4, None), farthest_first(y.float(), 4, None))


def test_a_batch_is_grouped_as_its_samples_are():
    y, real = torch.randn(3, 15, 4), torch.rand(3, 15) > 0.3
    whole = cluster_pooling(y, 5, real)
    for sample in range(3):
        alone = cluster_pooling(y[sample][None], 5, real[sample][None])
        assert torch.equal(whole[0][sample], alone[0][0])
        assert torch.equal(whole[1][sample], alone[1][0])


def test_no_gradient_flows_through_the_choice():
    y = torch.randn(1, 8, 4, requires_grad=True)
    pool, counts = cluster_pooling(y, 3, None)
    assert not pool.requires_grad and not counts.requires_grad
    group_means(y, pool).sum().backward()
    assert y.grad is not None
