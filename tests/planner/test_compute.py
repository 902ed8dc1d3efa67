"""A node's computation now: told from runs, gated like a link, and part of every prediction."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, Truth, make_map

from prism.perfmap import Stat
from prism.plan import Plan
from prism.planner import ComputeEstimate, CostModel, decide
from prism.record import LinkState, RunRecord

MODEL = CostModel(make_map(energy=True))
STATE = LINK.state()


def ran(text, batch, *computed_s, outcome="ok"):
    """A record of a plan, with what each node computed, rank 0 first."""
    plan = Plan.parse(text)
    records = [
        RunRecord(f"node{index}", plan, batch, LENGTH, 9.0, seconds, outcome=outcome)
        for index, seconds in enumerate(computed_s)
    ]
    return replace(records[0], per_node={each.node: each for each in records[1:]})


def test_one_slow_run_moves_nothing_and_two_do():
    well = ComputeEstimate()
    once = well.with_run(3.0, now_s=1.0)
    assert once.factor == 1.0
    assert once.with_run(1.0, now_s=1.2).with_run(3.0, now_s=1.4).factor == pytest.approx(1.0)
    slow = once.with_run(2.5, now_s=1.2)
    assert slow.factor == pytest.approx(2.5)


def test_a_node_that_recovers_is_believed_after_two_runs():
    slow = ComputeEstimate(3.0, 10.0)
    once = slow.with_run(1.0, now_s=10.5)
    assert once.factor == 3.0
    assert once.with_run(1.1, now_s=11.0).factor == pytest.approx(1.1)


def test_a_node_that_is_not_used_is_believed_to_recover():
    slow = ComputeEstimate(4.0, 10.0)
    assert slow.factor_at(10.0) == 4.0
    assert slow.factor_at(40.0) == pytest.approx(2.0)
    assert slow.factor_at(1e4) == pytest.approx(1.0)
    assert ComputeEstimate(0.25, 10.0).factor_at(40.0) == pytest.approx(0.5)


@given(ratio=st.floats(allow_nan=True, allow_infinity=True), factor=st.floats(0.1, 10))
def test_no_single_run_moves_the_factor_by_more_than_half(ratio, factor):
    moved = ComputeEstimate(factor, 5.0).with_run(ratio, now_s=5.0)
    assert factor / 1.5 <= moved.factor <= factor * 1.5


@given(ratios=st.lists(st.floats(0.01, 100), min_size=1, max_size=20))
def test_the_factor_stays_within_what_was_seen(ratios):
    estimate = ComputeEstimate()
    for place, ratio in enumerate(ratios):
        estimate = estimate.with_run(ratio, now_s=0.1 * place)
    assert min(1.0, *ratios) * (1 - 1e-9) <= estimate.factor <= max(1.0, *ratios) * (1 + 1e-9)


@pytest.mark.parametrize("text", ["seq:2:L10", "seq:2:full"])
def test_equal_parts_are_expected_to_take_equally_long(text):
    expected_s = Truth().compute_s(Plan.parse(text), 4)
    found = MODEL.compute_samples(ran(text, 4, expected_s, 3 * expected_s))
    # A helper ends before the last block, of which rank 0 computes a sixth.
    assert found == {"node0": pytest.approx(1.0), "node1": pytest.approx(3.0, rel=0.02)}


def test_balanced_parts_of_unequal_boards_too_and_others_by_their_work():
    """A helper half as fast: a third of the positions is balance, a half is twice the time."""
    perf = make_map(shapes=(), nodes=("board", "pi"))
    slow = [
        replace(entry, plan="local@node1", compute_s=Stat(2 * s), total_s=Stat(2 * s))
        for entry in perf.measurements
        if (s := entry.compute_s.median)
    ]
    shapes = ("seq:2:L10", "seq:2:L10:shares=2/1")
    both = make_map(shapes=shapes).measurements
    model = CostModel(replace(perf, measurements=(*both, *slow)))
    for text, longer in ((shapes[0], 2.0), (shapes[1], 1.0)):
        own_s = model.predict(Plan.parse(text), 4, LENGTH, STATE).compute_s
        found = model.compute_samples(ran(text, 4, own_s, longer * own_s))
        assert found == {"node0": pytest.approx(1.0), "node1": pytest.approx(1.0, rel=0.02)}


def test_rows_are_compared_with_the_same_rows_alone():
    law = Truth()
    found = MODEL.compute_samples(ran("batch:2:shares=2/1", 6, law.local_s(4), 2 * law.local_s(2)))
    assert found == {"node0": pytest.approx(1.0), "node1": pytest.approx(2.0)}
    assert MODEL.compute_samples(ran("local", 8, law.local_s(8) / 2)) == {
        "node0": pytest.approx(0.5)
    }
    away = replace(ran("local@node1", 8, 3 * law.local_s(8)), node="node1")
    assert MODEL.compute_samples(away) == {"node1": pytest.approx(3.0)}


def test_a_node_without_rows_is_no_sample():
    law = Truth()
    record = replace(ran("batch:2:shares=0/1", 4, law.local_s(4)), node="node1")
    assert MODEL.compute_samples(record) == {"node1": pytest.approx(1.0)}


def test_a_run_that_failed_or_that_the_map_does_not_know_is_no_sample():
    assert MODEL.compute_samples(ran("seq:2:L10", 4, 1.0, 1.0, outcome="recovered")) == {}
    assert MODEL.compute_samples(ran("seq:2:L77", 4, 1.0, 1.0)) == {}
    assert MODEL.compute_samples(replace(ran("local", 4, 1.0), node="ghost")) == {}


def test_a_sequence_plan_is_as_slow_as_its_slowest_node():
    plan, slow = Plan.parse("seq:3:L10"), {"node1": 1.5, "node2": 4.0}
    before = MODEL.predict(plan, 4, LENGTH, STATE)
    after = MODEL.predict(plan, 4, LENGTH, STATE, slow)
    assert after.compute_s == pytest.approx(4.0 * before.compute_s)
    assert after.comm_s == before.comm_s
    assert after.energy_j / after.total_s == pytest.approx(before.energy_j / before.total_s)


def test_rows_are_slowed_node_by_node():
    law, link = Truth(), LinkState(1e12, 0.0)
    split = Plan.parse("batch:2")
    slowed = MODEL.predict(split, 8, LENGTH, link, {"node1": 3.0})
    assert slowed.compute_s == pytest.approx(3.0 * law.local_s(4))
    own = MODEL.predict(split, 8, LENGTH, link, {"node0": 3.0})
    assert own.compute_s == pytest.approx(3.0 * law.local_s(4)) and own.input_s == 0.0
    local = MODEL.predict(Plan(), 8, LENGTH, link, {"node0": 3.0, "node1": 9.0})
    assert local.compute_s == pytest.approx(3.0 * law.local_s(8))


TEXTS = st.sampled_from(["local", "local@node1", "batch:2", "batch:3", "seq:2:L10", "seq:3:L10"])
factors = st.dictionaries(st.sampled_from(["node0", "node1", "node2"]), st.floats(0.5, 10))


@given(text=TEXTS, slow=factors, name=st.sampled_from(["node0", "node1"]), more=st.floats(1, 10))
def test_no_plan_is_faster_for_a_slower_node(text, slow, name, more):
    plan = Plan.parse(text)
    slower = {**slow, name: slow.get(name, 1.0) * more}
    before = MODEL.predict(plan, 6, LENGTH, STATE, slow).total_s
    assert MODEL.predict(plan, 6, LENGTH, STATE, slower).total_s >= before * (1 - 1e-9)


def test_a_throttled_helper_gets_fewer_rows_or_none():
    fast = LinkState(1e9, 0.0001)
    pair = ["node0", "node1"]
    assert str(decide(MODEL, 8, LENGTH, fast, alive=pair).choice) == "batch:2"
    throttled = decide(MODEL, 9, LENGTH, fast, alive=pair, slowdown={"node1": 2.0})
    assert throttled.choice == Plan("batch", count=2, shares=(6.0, 3.0))
    assert decide(MODEL, 8, LENGTH, fast, alive=pair, slowdown={"node1": 100.0}).choice == Plan()
    others = decide(MODEL, 8, LENGTH, fast, slowdown={"node1": 100.0})
    assert others.nodes == ("node0", "node2")


def test_what_is_predicted_is_what_is_expected():
    """A run that costs what was predicted says that every node is as in the map."""
    perf = make_map(shapes=("seq:2:L10",))
    whole = next(e for e in perf.measurements if (e.plan, e.batch) == ("local", 8))
    split = replace(whole, plan="batch:2")  # measured as slow as local: nodes cost each other
    model = CostModel(replace(perf, measurements=(*perf.measurements, split)))
    for text in ("local", "seq:2:L10", "batch:2"):
        own_s = model.predict(Plan.parse(text), 8, LENGTH, LinkState(1e12, 0.0)).compute_s
        found = model.compute_samples(ran(text, 8, *[own_s] * Plan.parse(text).size))
        assert found == pytest.approx(dict.fromkeys(found, 1.0), rel=0.02) and found


def test_with_lag_a_helper_ends_two_blocks_earlier_and_is_no_faster_for_it():
    text = "seq:2:L10:lag1"
    own_s = Truth().compute_s(Plan.parse(text), 4)
    found = MODEL.compute_samples(ran(text, 4, own_s, own_s * 10 / (11 + 1 / 6)))
    assert found == pytest.approx({"node0": 1.0, "node1": 1.0})
