"""Shares of positions: as they are unless others clearly gain, and lossy ones only if measured."""

from dataclasses import dataclass, replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, MODEL, PAYLOAD, Truth, make_map

from prism.perfmap import Payload, Stat
from prism.plan import Objective, Plan
from prism.planner import CostModel, LinkEstimate, Links, decide
from prism.planner.steps import played
from prism.record import LinkState, RunRecord

FAST = LinkState(10e9, 0.0002)
FULL = ("seq:2:full", "seq:3:full")
PERF = make_map(shapes=FULL)
PAIR = ("node0", "node1")
C10 = "seq:2:C10:f16"
ALL_SPLITS = make_map(
    shapes=(*FULL, C10),
    drops={f"{C10}:shares={each}": 0.0 for each in ("60/40", "55/45", "45/55", "40/60")},
)


def plans(decision):
    return {str(candidate.plan): candidate for candidate in decision.candidates}


def solved(perf, link=FAST, *, slowdown=None, batch=1, alive=(), **more):
    """Return the sequence plans with shares that were considered."""
    decision = decide(CostModel(perf), batch, LENGTH, link, slowdown=slowdown, alive=alive, **more)
    return [text for text in plans(decision) if text.startswith("seq") and "shares" in text]


def oracle(plan, model, block_s, begins_s, exchange_s, one_row):
    """When each node is done, told backwards: what a block needs before it can go on."""
    helpers_end = model.blocks - 1 - plan.lag if one_row else model.blocks

    @cache
    def begins(rank, block):
        return begins_s[rank] if block == 0 else ends(rank, block - 1)

    def posts(rank, block):
        inside = 0.25 * block_s[rank] if model.rotary else 0.0
        return begins(rank, block) + inside

    @cache
    def ends(rank, block):
        if rank and block >= helpers_end:
            return begins(rank, block)
        last = one_row and block == model.blocks - 1
        attends = begins(rank, block) + (1 / 6 if last else 0.25) * block_s[rank]
        if model.rotary or block > plan.lag:
            for other in range(plan.size):
                if other < rank or (other > rank and not model.causal):
                    attends = max(attends, posts(other, block - plan.lag) + exchange_s)
        return attends + (0.0 if last else 0.75) * block_s[rank]

    return [ends(rank, model.blocks - 1) for rank in range(plan.size)]


seconds = st.floats(0, 1)


@given(
    nodes=st.integers(2, 4),
    lag=st.sampled_from([0, 1]),
    causal=st.booleans(),
    rotary=st.booleans(),
    one_row=st.booleans(),
    blocks=st.integers(1, 6),
    data=st.data(),
)
def test_nodes_wait_for_what_a_block_needs(nodes, lag, causal, rotary, one_row, blocks, data):
    model = replace(MODEL, causal=causal, rotary=rotary, blocks=blocks)
    plan = Plan("sequence", count=nodes, means=3, lag=0 if rotary else lag)
    each = st.lists(seconds, min_size=nodes, max_size=nodes)
    block_s, begins_s, exchange_s = data.draw(each), data.draw(each), data.draw(seconds)
    one_row = one_row and not (causal or rotary)
    expected = oracle(plan, model, block_s, begins_s, exchange_s, one_row)
    found = played(plan, model, block_s, begins_s, exchange_s, one_row)
    assert found == pytest.approx(expected)


@given(
    bandwidth_bps=st.floats(1e5, 1e10),
    latency_s=st.floats(0, 0.05),
    batch=st.integers(1, 16),
)
def test_equal_nodes_share_equally(bandwidth_bps, latency_s, batch):
    """A helper that begins late is waited for once; with less to do it would not begin sooner."""
    assert not solved(ALL_SPLITS, LinkState(bandwidth_bps, latency_s), batch=batch)


LAGGED = "seq:2:C10:lag1:f16"


@dataclass(frozen=True)
class OneRowInTheLastBlock(Truth):
    """Half the positions take half as long, and a sixth of that in the last of `blocks`."""

    blocks: int = 12

    def compute_s(self, plan, batch):
        part = (self.blocks - 1 + 1 / 6) / self.blocks / 2
        return self.local_s(batch) * (part if plan.exchanges else 1.0)


def lagged(blocks, splits=("60/40", "55/45", "45/55", "40/60"), payload=PAYLOAD):
    """Return a map of a model of so many blocks, its lagged plan measured in some splits."""
    drops = {f"{LAGGED}:shares={shares}": 0.0 for shares in splits}
    truth = OneRowInTheLastBlock(blocks=blocks)
    perf = make_map(shapes=(LAGGED,), drops={LAGGED: 0.0, **drops}, truth=truth)
    return replace(perf, model=replace(MODEL, blocks=blocks), payload=payload)


def test_with_lag_helpers_get_more_since_they_end_two_blocks_earlier():
    """Of six blocks a helper computes four, rank 0 five and the keys and values of the last."""
    model = CostModel(lagged(6))
    assert solved(lagged(6), alive=PAIR) == [f"{LAGGED}:shares=45/55"]
    equal, more = (
        model.predict(Plan.parse(text), 1, LENGTH, FAST).total_s
        for text in (LAGGED, f"{LAGGED}:shares=45/55")
    )
    assert 0.85 * equal < more < 0.98 * equal
    # Nobody has measured what such a split loses.
    assert solved(lagged(6, splits=("60/40",)), alive=PAIR) == []
    # Of twelve blocks two are less than the step from 50 to 55 in every other.
    assert solved(lagged(12), alive=PAIR) == []


def test_helpers_whose_rows_are_wanted_compute_all_blocks():
    """Told from the size of the output, or from the time that gathering took."""
    per_position = Payload(150_528, 0, 0, 9 * 4)  # nine labels for every token
    assert solved(lagged(6, payload=per_position), alive=PAIR) == []
    perf = lagged(6)
    row_s = 8 * 98 * 768 * 2 / LINK.bandwidth_bps
    gathered = [
        replace(entry, output_s=Stat(entry.batch * row_s)) if entry.plan == LAGGED else entry
        for entry in perf.measurements
    ]
    assert solved(replace(perf, measurements=tuple(gathered)), alive=PAIR) == []


def test_a_node_that_is_slowed_gets_less_to_do():
    slow = {"node1": 1.5}
    decision = decide(CostModel(PERF), 1, LENGTH, FAST, slowdown=slow, alive=PAIR)
    assert str(decision.choice) == "seq:2:full:shares=65/35"
    equal = plans(decision)["seq:2:full"]
    assert decision.predicted_s < 0.9 * equal.predicted_s
    # Both end together: twelve blocks of 65 parts, or one and a half times as long for 35.
    assert decision.candidates[0].compute_s == pytest.approx(
        0.65 / 0.5 * equal.compute_s / 1.5, rel=0.1
    )
    other = decide(CostModel(PERF), 1, LENGTH, FAST, slowdown={"node0": 1.5}, alive=PAIR)
    assert str(other.choice) == "seq:2:full:shares=35/65"


def test_the_same_question_has_the_same_answer():
    slow = {"node1": 1.7, "node2": 1.2}
    assert solved(PERF, slowdown=slow) == solved(PERF, slowdown=slow)
    nearly = {name: factor * 1.001 for name, factor in slow.items()}
    assert solved(PERF, slowdown=nearly) == solved(PERF, slowdown=slow)


@given(slow=st.floats(1, 4), rank=st.sampled_from(PAIR), batch=st.sampled_from([1, 4, 16]))
def test_no_step_of_five_percent_is_clearly_better(slow, rank, batch):
    model = CostModel(PERF)
    decision = decide(model, batch, LENGTH, FAST, slowdown={rank: slow}, alive=PAIR)
    best_s = min(c.predicted_s for c in decision.candidates if c.plan.strategy == "sequence")
    for first in range(5, 100, 5):
        plan = Plan("sequence", count=2, shares=(float(first), 100.0 - first))
        there = model.predict(plan, batch, LENGTH, FAST, {rank: slow})
        assert best_s <= there.total_s * 1.03


def test_a_predicted_split_costs_what_its_parts_add_up_to():
    model, plan = CostModel(make_map(shapes=FULL, energy=True)), Plan.parse("seq:2:full:shares=3/1")
    cost = model.predict(plan, 4, LENGTH, FAST)
    equal = model.predict(Plan.parse("seq:2:full"), 4, LENGTH, FAST)
    assert cost.total_s > equal.total_s and cost.compute_s > 1.2 * equal.compute_s
    assert cost.energy_j / cost.total_s == pytest.approx(equal.energy_j / equal.total_s)
    as_measured = Plan.parse("seq:2:full:shares=5/5")
    assert model.predict(as_measured, 4, LENGTH, FAST) == pytest.approx(equal)


def test_a_plan_that_runs_as_predicted_says_that_all_is_well():
    model, plan = CostModel(PERF), Plan.parse("seq:2:full:shares=3/1")
    cost = model.predict(plan, 4, LENGTH, LINK.state())
    expected = model.compute_samples(ran(plan, 1.0, 1.0))
    own_s, helper_s = 1 / expected["node0"], 1 / expected["node1"]
    assert own_s == pytest.approx(cost.compute_s) and helper_s < own_s / 2
    record = replace(ran(plan, own_s, helper_s), comm_s=cost.comm_s)
    assert model.compute_samples(record) == pytest.approx({"node0": 1.0, "node1": 1.0})
    link = LINK.state()
    estimate = LinkEstimate(link)
    for sample in model.link_samples(record, Links(link)).values():
        estimate = estimate.with_run(sample, 0.1)
    assert estimate.state.bandwidth_bps == pytest.approx(link.bandwidth_bps, rel=0.01)
    slower = replace(record, comm_s=cost.comm_s + 1.0)
    (sample,) = model.link_samples(slower, Links(link)).values()
    assert sample.bits / sample.seconds < link.bandwidth_bps / 1.5


def ran(plan, own_s, helper_s):
    record = RunRecord("node0", plan, 4, LENGTH, 9.0, own_s)
    return replace(record, per_node={"node1": replace(record, node="node1", compute_s=helper_s)})


def test_lossy_plans_are_split_only_as_somebody_measured():
    drops = {C10: 0.001}
    budget = Objective(max_accuracy_drop=0.01)
    more = {"slowdown": {"node1": 1.6}, "alive": PAIR, "objective": budget}
    assert solved(make_map(shapes=(C10,), drops=drops), **more) == []
    drops |= {f"{C10}:shares=60/40": 0.002, f"{C10}:shares=90/10": 0.002}
    perf = make_map(shapes=(C10,), drops=drops)
    assert solved(perf, **more) == [f"{C10}:shares=60/40"]
    decision = decide(CostModel(perf), 1, LENGTH, FAST, **more)
    assert str(decision.choice) == f"{C10}:shares=60/40"
    # As measured: as good an answer as allowed, or none at all.
    worse = make_map(shapes=(C10,), drops={**drops, f"{C10}:shares=60/40": 0.02})
    assert str(decide(CostModel(worse), 1, LENGTH, FAST, **more).choice) == C10


@pytest.mark.parametrize(("causal", "lag"), [(False, ":lag1"), (True, "")])
def test_the_last_to_begin_gets_less_where_its_rows_are_waited_for_at_the_end(causal, lag):
    """With lag, or in a causal model, a late helper is caught up with if it has less to do."""
    text = f"seq:2:C10{lag}:f16"
    drops = {f"{text}:shares={shares}": 0.0 for shares in ("60/40", "40/60")}
    perf = make_map(shapes=(text,), drops=drops)
    rows = Payload(150_528, 0, 0, 768 * 4)
    perf = replace(perf, model=replace(MODEL, causal=causal), payload=rows)
    assert solved(perf, LinkState(100e6, 0.001), alive=PAIR) == [f"{text}:shares=60/40"]


def test_a_causal_model_ends_with_its_last_position():
    """Rank 0 has the first positions and could end long before, with nothing to answer."""
    drops = {f"{C10}:shares={shares}": 0.0 for shares in ("90/10", "60/40", "40/60", "10/90")}
    perf = replace(make_map(shapes=(C10,), drops=drops), model=replace(MODEL, causal=True))
    assert solved(perf, FAST, alive=PAIR) == []


def test_shares_beyond_the_measured_need_every_node_measured_alone():
    perf = make_map(shapes=("seq:2:full",), nodes=("board", "unknown"))
    decision = decide(CostModel(perf), 1, LENGTH, FAST, slowdown={"node1": 2.0})
    assert set(plans(decision)) == {"local", "seq:2:full"}
    named = Plan.parse("seq:2:full:shares=3/1")
    assert named.shape in {
        entry.plan for entry in decide(CostModel(perf), 1, LENGTH, FAST, allow=[named]).left_out
    }


def test_a_board_half_as_fast_keeps_the_share_it_was_measured_with():
    perf = make_map(shapes=(), nodes=("board", "pi"))
    slow = [
        replace(entry, plan="local@node1", compute_s=Stat(2 * s), total_s=Stat(2 * s))
        for entry in perf.measurements
        if (s := entry.compute_s.median)
    ]
    drops = {f"{C10}:shares={shares}": 0.0 for shares in ("67/33", "60/40", "75/25", "50/50")}
    both = make_map(shapes=(f"{C10}:shares=67/33",), drops=drops)
    perf = replace(perf, measurements=(*both.measurements, *slow), accuracy=both.accuracy)
    assert solved(perf) == [f"{C10}:shares=67/33"]
    throttled = decide(
        CostModel(perf), 1, LENGTH, FAST, slowdown={"node0": 2.0},
        objective=Objective(max_accuracy_drop=0.1),
    )  # fmt: skip
    assert throttled.choice in (Plan.parse(C10), Plan.parse(f"{C10}:shares=50/50"))
