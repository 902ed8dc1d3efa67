import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism.errors import RequestError
from prism.partition.spans import Span, rows, segment_sizes, spans

# Small whole numbers make ties.
SHARES = st.one_of(st.integers(1, 5).map(float), st.floats(0.001, 1000.0))


@st.composite
def sequences(draw):
    """A length, and one positive share for each of no more nodes than that."""
    shares = draw(st.lists(SHARES, min_size=1, max_size=9))
    return draw(st.integers(len(shares), 3000)), shares


def sizes(parts):
    return [part.size for part in parts]


def quotas(total, shares):
    exact = [Fraction(share) for share in shares]
    return [total * share / sum(exact) for share in exact]


def assert_consecutive(parts, total):
    assert parts[0].start == 0 and parts[-1].stop == total
    assert all(a.stop == b.start for a, b in zip(parts, parts[1:], strict=False))


@pytest.mark.parametrize(
    ("length", "nodes", "expected"), [(197, 2, [99, 98]), (5, 4, [2, 1, 1, 1])]
)
def test_equal_spans(length, nodes, expected):
    assert sizes(spans(length, nodes)) == expected


def test_spans_are_slices_of_the_sequence():
    assert spans(10, 2, (3, 2)) == (Span(0, 6), Span(6, 10))


@given(st.integers(1, 12), st.integers(0, 3000), SHARES)
def test_equal_shares_split_as_torch_does(nodes, extra, share):
    length = nodes + extra
    oracle = [len(part) for part in torch.tensor_split(torch.arange(length), nodes)]
    assert sizes(spans(length, nodes)) == oracle
    assert sizes(spans(length, nodes, (share,) * nodes)) == oracle


@given(sequences())
def test_spans_cover_the_sequence_with_one_position_each(case):
    length, shares = case
    parts = spans(length, len(shares), shares)
    assert_consecutive(parts, length)
    assert min(sizes(parts)) >= 1


@given(sequences())
def test_spans_differ_from_rows_only_where_a_node_would_get_nothing(case):
    length, shares = case
    of_rows = sizes(rows(length, len(shares), shares))
    of_positions = sizes(spans(length, len(shares), shares))
    if 0 in of_rows:
        assert all(
            after == 1 for before, after in zip(of_rows, of_positions, strict=True) if before == 0
        )
    else:
        assert of_positions == of_rows


@given(sequences())
def test_a_larger_share_gets_no_less(case):
    length, shares = case
    by_share = sorted(zip(shares, sizes(spans(length, len(shares), shares)), strict=True))
    assert [size for _, size in by_share] == sorted(size for _, size in by_share)


@given(sequences(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_does_not_change_what_a_share_is_worth(case, random):
    length, shares = case
    shuffled = random.sample(shares, len(shares))
    for split in (spans, rows):
        before = sorted(zip(shares, sizes(split(length, len(shares), shares)), strict=True))
        after = sorted(zip(shuffled, sizes(split(length, len(shares), shuffled)), strict=True))
        assert before == after


@given(st.integers(0, 500), st.lists(st.one_of(st.just(0.0), SHARES), min_size=1).filter(any))
def test_rows_are_within_one_of_their_quota(batch, shares):
    parts = rows(batch, len(shares), shares)
    assert_consecutive(parts, batch)
    for size, quota in zip(sizes(parts), quotas(batch, shares), strict=True):
        assert math.floor(quota) <= size <= math.ceil(quota)


def test_a_zero_share_gets_no_rows():
    assert sizes(rows(5, 3, (0, 1, 0))) == [0, 5, 0]
    assert sizes(rows(2, 4)) == [1, 1, 0, 0]


def test_a_tie_goes_to_the_larger_share():
    assert sizes(rows(4, 2, (3, 5))) == [1, 3]
    assert sizes(rows(4, 2, (5, 3))) == [3, 1]


def test_shares_of_extreme_sizes_are_apportioned_exactly():
    assert sizes(rows(7, 2, (1e308, 1e308))) == [4, 3]
    assert sizes(spans(7, 3, (5e-324, 1e308, 5e-324))) == [1, 5, 1]


@pytest.mark.parametrize(("length", "nodes"), [(0, 2), (1, 2), (3, 8)])
def test_a_sequence_shorter_than_the_nodes_is_refused(length, nodes):
    with pytest.raises(RequestError, match=rf"\b{length} positions.*\b{nodes} nodes; use"):
        spans(length, nodes)


@given(st.integers(1, 600), st.integers(1, 700))
def test_segments_split_as_torch_does(length, segments):
    oracle = torch.tensor_split(torch.arange(length), min(segments, length))
    assert segment_sizes(length, segments) == tuple(len(part) for part in oracle)


@given(st.integers(0, 600))
def test_without_segments_every_row_stands_alone(length):
    assert segment_sizes(length, None) == (1,) * length


def test_no_rows_make_no_segments():
    assert segment_sizes(0, 4) == ()
