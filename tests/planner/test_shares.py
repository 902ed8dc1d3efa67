"""Rows per node: never slower than handed out otherwise."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, Truth, make_map, replace_measurements

from prism.perfmap import Measurement, Stat
from prism.plan import Plan
from prism.planner import CostModel, decide, solve_shares
from prism.record import LinkState


def curve(steps):
    """A cost that never falls with the rows, from its increments."""
    return lambda rows: sum(steps[:rows])


@given(data=st.data(), nodes=st.integers(1, 3), rows=st.integers(0, 6))
def test_no_other_split_ends_earlier(data, nodes, rows):
    steps = st.lists(st.floats(0, 10), min_size=7, max_size=7)
    costs = [curve(data.draw(steps)) for _ in range(nodes)]

    def ends_s(split):
        return max(cost(count) if count else 0.0 for cost, count in zip(costs, split, strict=True))

    found = solve_shares(costs, rows)
    every = [split for split in product(range(rows + 1), repeat=nodes) if sum(split) == rows]
    assert sum(found) == rows
    assert ends_s(found) <= min(map(ends_s, every)) + 1e-9


def test_ties_go_to_the_earlier_node():
    assert solve_shares([float, float], 5) == (3, 2)


def test_a_slow_helper_gets_fewer_rows_and_a_hopeless_one_none():
    perf = make_map(shapes=(), nodes=("board", "pi", "clock"))
    slow = [
        Measurement(f"local@{name}", batch, LENGTH, 3, Stat(s := factor * Truth().local_s(batch)),
                    Stat(s))
        for name, factor in (("node1", 2), ("node2", 100))
        for batch in (1, 2, 4, 8, 16)
    ]  # fmt: skip
    model = CostModel(replace_measurements(perf, *perf.measurements, *slow))
    link = LinkState(1e9, 0.0001)
    decision = decide(model, 9, LENGTH, link)
    assert decision.choice == Plan("batch", count=2, shares=(6.0, 3.0))
    equal = next(c for c in decision.candidates if c.plan == Plan.parse("batch:2"))
    assert decision.predicted_s < equal.predicted_s


def test_a_node_that_nobody_measured_alone_gets_no_rows():
    model = CostModel(make_map(shapes=(), nodes=("board", "unknown")))
    decision = decide(model, 8, LENGTH, LINK.state())
    assert [str(candidate.plan) for candidate in decision.candidates] == ["local"]
    assert any("alone" in entry.reason for entry in decision.left_out)


@pytest.mark.parametrize("mbps", [1, 1000])
def test_few_rows_are_sent_over_a_slow_link(mbps):
    model = CostModel(make_map(shapes=()))
    decision = decide(model, 16, LENGTH, LinkState(mbps * 1e6, 0.001))
    if mbps == 1:
        assert decision.choice == Plan()
    else:
        assert decision.choice.size == 3
