"""Who has and sends how many rows follows from the spans; who listens to whom, from causality."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.errors import RequestError
from prism.partition.senders import sent_rows, sizes_of, sources_of
from prism.partition.spans import segment_sizes, spans
from prism.plan import Plan


@given(
    nodes=st.integers(2, 6),
    length=st.integers(6, 500),
    means=st.none() | st.integers(1, 40),
    uneven=st.booleans(),
)
def test_a_rank_sends_its_segments_or_all_its_rows(nodes, length, means, uneven):
    shares = tuple(float(rank + 1) for rank in range(nodes)) if uneven else ()
    plan = Plan("sequence", count=nodes, means=means, shares=shares)
    sizes = [span.size for span in spans(length, nodes, shares)]
    assert list(sizes_of(plan, length)) == sizes
    assert sent_rows(plan, length) == [len(segment_sizes(size, means)) for size in sizes]


def test_causal_ranks_attend_to_earlier_ones_only():
    plan = Plan.parse("seq:3:L2")
    assert [sources_of(rank, plan, causal=False) for rank in range(3)] == [[1, 2], [0, 2], [0, 1]]
    assert [sources_of(rank, plan, causal=True) for rank in range(3)] == [[], [0], [0, 1]]


def test_too_few_positions_are_refused():
    with pytest.raises(RequestError, match="use a plan with fewer nodes"):
        sent_rows(Plan.parse("seq:3:L2"), 2)
