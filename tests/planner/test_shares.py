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


@given(
    slow=st.fixed_dictionaries({"node0": st.floats(0.5, 4), "node1": st.floats(0.5, 4)}),
    mbps=st.floats(2, 1000),
    batch=st.integers(3, 7),
)
def test_no_row_is_better_off_elsewhere(slow, mbps, batch):
    """Input, output, the shared uplink and unequal speed included, against every other split."""
    model, link = CostModel(make_map(shapes=())), LinkState(mbps * 1e6, 0.001)
    decision = decide(model, batch, LENGTH, link, slowdown=slow)
    every = [split for split in product(range(batch + 1), repeat=3) if sum(split) == batch]
    plans = [Plan("batch", count=3, shares=tuple(map(float, split))) for split in every]
    least_s = min(model.predict(plan, batch, LENGTH, link, slow).total_s for plan in plans)
    assert min(c.predicted_s for c in decision.candidates) <= least_s * 1.001


def test_a_helper_with_few_rows_frees_the_uplink_for_the_others():
    model, link = CostModel(make_map(shapes=())), LinkState(100e6, 0.001)
    row_s = 224 * 224 * 3 * 8 / 100e6
    hidden_s = model.predict(Plan.parse("local"), 1, LENGTH, link).total_s
    # Rows behind the first ones of every helper arrive while those are computed.
    for shares, ahead in (("0/6/0", 1), ("0/3/3", 2), ("0/5/1", 2)):
        cost = model.predict(Plan.parse(f"batch:3:shares={shares}"), 6, LENGTH, link)
        late_s = max(0.0, (6 - ahead) * row_s - hidden_s)
        assert cost.input_s == pytest.approx(0.001 + ahead * row_s + late_s)


def test_a_hopeless_helper_takes_nothing_of_the_uplink():
    model, link = CostModel(make_map(shapes=())), LinkState(30e6, 0.001)
    hopeless = {"node2": 1000.0}
    three = decide(model, 8, LENGTH, link, slowdown=hopeless)
    two = decide(model, 8, LENGTH, link, alive=("node0", "node1"))
    assert (three.choice, three.predicted_s) == (two.choice, pytest.approx(two.predicted_s))
