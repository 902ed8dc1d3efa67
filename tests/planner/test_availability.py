"""Nodes that are away and plans that just failed: an answer is owed, and says why."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, make_map

from prism.errors import PlanError
from prism.perfmap import Stat
from prism.plan import Objective, Plan
from prism.planner import CostModel, LinkEstimate, Load, Planner, decide, sweep_bandwidth
from prism.record import LinkState

MODEL = CostModel(make_map())
FAST = LinkState(1e9, 0.0005)
FASTER = LinkState(1e12, 0.0)  # exchanges cost next to nothing
LOCAL = Plan()
WHY = "timed out 2 times; tried again in 7 s"


def by_text(decision):
    return {str(candidate.plan): candidate for candidate in decision.candidates}


def unequal(*factors, energy=False):
    """A map whose helpers were measured alone, so many times as slow as the first node."""
    perf = make_map(shapes=("seq:2:L10",), nodes=("board", "pi", "clock"), energy=energy)
    alone = [
        replace(
            entry,
            plan=f"local@node{index}",
            total_s=Stat(factor * entry.total_s.median),
            compute_s=Stat(factor * entry.compute_s.median),
        )
        for index, factor in enumerate(factors, start=1)
        for entry in perf.measurements
        if entry.plan == "local"
    ]
    return CostModel(replace(perf, measurements=(*perf.measurements, *alone)))


def test_a_counted_plan_tells_where_it_was_placed():
    decision = decide(
        MODEL, 8, LENGTH, FASTER, alive=["node0", "node2"], allow=[Plan.parse("seq:2:full")]
    )
    assert (str(decision.choice), decision.nodes) == ("seq:2:full", ("node0", "node2"))
    found = by_text(decision)
    assert found["local"].nodes == ("node0",)
    assert found["seq:2:full"].nodes == ("node0", "node2")
    document = decision.to_dict()
    assert json.loads(json.dumps(document)) == document
    assert document["nodes"] == ["node0", "node2"]


def test_other_nodes_of_the_same_hardware_take_over():
    fast = LinkState(1e9, 0.0)
    allow = [Plan.parse("seq:2:L10")]
    decision = decide(MODEL, 8, LENGTH, fast, alive=["node0", "node2"], allow=allow)
    assert str(decision.choice) == "seq:2:L10"
    mixed = CostModel(make_map(nodes=("board", "board", "pi")))
    decision = decide(mixed, 8, LENGTH, fast, alive=["node0", "node2"], allow=allow)
    assert decision.choice == LOCAL
    assert any("such nodes" in entry.reason for entry in decision.left_out)


def test_alone_there_is_only_local():
    decision = decide(MODEL, 8, LENGTH, LINK.state(), alive=["node0"])
    assert decision.choice == LOCAL
    assert list(by_text(decision)) == ["local"]
    assert len(decision.left_out) == 5


def test_without_the_first_node_the_quickest_one_answers():
    model = unequal(4.0, 2.0)
    decision = decide(model, 1, LENGTH, LINK.state(), alive=["node1", "node2"])
    assert (str(decision.choice), decision.nodes) == ("local@node2", ("node2",))
    expected = model.predict(Plan.parse("local@node2"), 1, LENGTH, LINK.state())
    assert decision.predicted_s == expected.total_s
    assert "away" in {each.plan: each.reason for each in decision.left_out}["seq:2:L10"]


def test_the_quickest_node_is_the_one_whose_link_is_well():
    each = {"node1": LinkState(1e5, 0.001), "node2": FAST}
    decision = decide(MODEL, 1, LENGTH, each, alive=["node1", "node2"])
    assert decision.nodes == ("node2",)
    swapped = {"node1": FAST, "node2": LinkState(1e5, 0.001)}
    assert decide(MODEL, 1, LENGTH, swapped, alive=["node1", "node2"]).nodes == ("node1",)


def test_without_the_first_node_rows_are_split_among_those_left():
    decision = decide(MODEL, 8, LENGTH, FAST, alive=["node1", "node2"])
    assert (str(decision.choice), decision.nodes) == ("batch:2", ("node1", "node2"))
    alone = by_text(decision)["local@node1"]
    assert decision.predicted_s < 0.6 * alone.predicted_s
    assert decision.candidates[0].input_s > 0.0, "both helpers get their rows over the link"


def test_a_plan_held_from_before_the_first_node_went_is_let_go():
    planner = Planner(MODEL)
    allow = [Plan.parse("seq:2:full"), LOCAL]
    assert str(planner.decide(1, LENGTH, FASTER, allow=allow).choice) == "seq:2:full"
    away = planner.decide(1, LENGTH, FASTER, alive=["node1", "node2"], allow=allow)
    assert away.nodes == ("node1",)
    assert str(planner.decide(1, LENGTH, FASTER, allow=allow).choice) == "seq:2:full"
    assert decide(MODEL, 1, LENGTH, FASTER, alive=["node2"], current=LOCAL).nodes == ("node2",)


def test_an_answer_is_owed_even_if_its_energy_was_never_measured():
    model = unequal(3.0, 2.0)
    wanted = Objective("energy")
    decision = decide(model, 1, LENGTH, FAST, alive=["node1", "node2"], objective=wanted)
    assert decision.nodes == ("node2",)


def test_nodes_that_nobody_measured_alone_cannot_answer():
    model = CostModel(make_map(nodes=("board", "pi", "pi")))
    with pytest.raises(PlanError, match="none of node1, node2 alone.*node0 is away"):
        decide(model, 1, LENGTH, FAST, alive=["node1", "node2"])


def test_a_sweep_needs_the_first_node():
    with pytest.raises(PlanError, match="first node0, not node1"):
        sweep_bandwidth(MODEL, 1, LENGTH, FAST, alive=["node1"])


subsets = st.lists(st.sampled_from(["node0", "node1", "node2"]), min_size=1, unique=True)


@given(
    alive=subsets.map(sorted),
    batch=st.integers(1, 9),
    bandwidth=st.floats(1e5, 1e10),
    failed=st.sets(
        st.sampled_from(
            ["local", "node0", "node1", "node2", "batch:2", "seq:2:full", "local@node1"]
        )
    ),
    busy=st.booleans(),
)
def test_whoever_is_alive_and_whatever_failed_there_is_an_answer(
    alive, batch, bandwidth, failed, busy
):
    load = Load({"node0": 1.0}, 3) if busy else None
    link = LinkState(bandwidth, 0.001)
    decision = decide(
        MODEL, batch, LENGTH, link, alive=alive, load=load, backoff=dict.fromkeys(failed, WHY)
    )
    assert len(by_text(decision)) == len(decision.candidates), "no plan is there twice"
    chosen = by_text(decision)[str(decision.choice)]
    assert chosen.allowed and chosen.nodes == decision.nodes
    assert set(decision.nodes) <= set(alive)
    others = [each for each in decision.candidates if each.allowed and each is not chosen]
    if others:
        assert chosen.plan.shape not in failed and not set(chosen.nodes) & failed
    for candidate in decision.candidates:
        if candidate is not chosen and (
            candidate.plan.shape in failed or set(candidate.nodes) & failed
        ):
            assert not candidate.allowed and candidate.reason == WHY


def test_a_plan_that_failed_is_left_alone_with_the_reason():
    best = decide(MODEL, 1, LENGTH, FASTER)
    assert str(best.choice) == "seq:2:full"
    after = decide(MODEL, 1, LENGTH, FASTER, backoff={"seq:2:full": WHY}, current=best.choice)
    assert after.choice == LOCAL
    left = by_text(after)["seq:2:full"]
    assert not left.allowed and left.reason == WHY


def test_a_node_that_failed_is_left_alone_by_every_plan():
    after = decide(MODEL, 8, LENGTH, FAST, backoff={"node1": WHY}, load=Load())
    assert "node1" not in after.nodes
    reasons = {text: each.reason for text, each in by_text(after).items()}
    assert reasons["batch:2"] == reasons["seq:3:L10"] == reasons["local@node1"] == WHY
    assert reasons["local@node2"] != WHY


@pytest.mark.parametrize("failed", ["local", "node0"])
def test_local_is_left_alone_only_if_something_else_may_be_used(failed):
    alone = decide(MODEL, 8, LENGTH, FAST, alive=["node0"], backoff={failed: WHY})
    assert alone.choice == LOCAL and by_text(alone)["local"].allowed
    busy = decide(MODEL, 8, LENGTH, FAST, backoff={failed: WHY}, load=Load())
    assert busy.choice != LOCAL
    assert by_text(busy)["local"].reason == WHY


@pytest.mark.parametrize("mbps", [0.1, 1.0, 5.0])
def test_a_link_that_fell_costs_two_requests_their_deadline(mbps):
    """Each run is given up at three times its prediction; what that says is learned."""
    estimate = LinkEstimate(LinkState(1e9, 0.001))
    planner, paid = Planner(MODEL), 0
    allow = [Plan.parse("seq:2:full"), Plan.parse("seq:2:L10")]
    for place in range(10):
        decision = planner.decide(8, LENGTH, estimate.state, allow=allow)
        true_link = LinkState(mbps * 1e6, 0.001)
        took_s = MODEL.predict(decision.choice, 8, LENGTH, true_link).total_s
        if took_s <= 3 * decision.predicted_s:
            continue
        paid += 1
        heard = MODEL.timeout_sample(decision.choice, 8, LENGTH, 3 * decision.predicted_s)
        estimate = estimate.with_run(heard, now_s=1.0 + place)
    assert paid == 2
    assert decision.choice == LOCAL
