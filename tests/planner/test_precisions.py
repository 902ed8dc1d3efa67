"""Plans at lower precisions: derived from float32 and from few measurements, and told as such."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, PARTS, Truth, make_map

from prism.errors import PlanError
from prism.perfmap import Accuracy, Stat
from prism.plan import Objective, Plan
from prism.planner import CostModel, Load, covered_plans, decide
from prism.record import LinkState, RunRecord

STATE = LINK.state()
FAST = LinkState(1e9, 0.0005)
SHAPES = ("seq:2:full", "seq:2:L10", "seq:2:L10:lag1", "local:half", "local:int8")
LEAVE = Objective(max_accuracy_drop=0.05)


def model_of(*shapes, **more):
    return CostModel(make_map(shapes=shapes or SHAPES, **more))


def told(decision):
    return {str(each.plan): each for each in decision.candidates}


def as_measured(text, batches=(1, 2, 4, 8, 16)):
    return tuple(Truth().measure(Plan.parse(text), batch) for batch in batches)


@pytest.mark.parametrize("precision", ["half", "int8"])
@pytest.mark.parametrize("text", ["seq:2:full", "seq:2:L10"])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_plan_that_never_ran_is_predicted_as_it_would_run(text, precision, batch):
    """The stall in float32 tells what was hidden; at the precision less is."""
    plan = Plan.parse(f"{text}:{precision}")
    predicted = model_of().predict(plan, batch, LENGTH, STATE)
    law = Truth()
    if batch in (1, 16):
        assert predicted.compute_s == pytest.approx(law.compute_s(plan, batch))
        assert predicted.comm_s == pytest.approx(law.comm_s(plan, batch, STATE))
    assert predicted.total_s == pytest.approx(law.total_s(plan, batch, STATE), rel=0.02)
    assert predicted.derived and predicted.extrapolated


def test_what_was_measured_is_not_derived():
    perf = make_map(shapes=(*SHAPES, "seq:2:L10:int8"))
    predicted = CostModel(perf).predict(Plan.parse("seq:2:L10:int8"), 4, LENGTH, STATE)
    assert not predicted.derived and not predicted.extrapolated
    float32 = CostModel(perf).predict(Plan.parse("seq:2:L10"), 4, LENGTH, STATE)
    assert not float32.derived


@given(
    part=st.floats(0.05, 1.0),
    smaller=st.floats(0.1, 1.0),
    text=st.sampled_from(["seq:2:full", "seq:2:L10", "seq:2:L10:lag1"]),
    batch=st.integers(1, 20),
)
def test_a_faster_precision_makes_no_plan_slower_but_its_stalls_longer(part, smaller, text, batch):
    plan, slow = Plan.parse(text), PARTS["int8"]

    def predicted(part):
        perf = make_map(shapes=SHAPES)
        entries = [
            replace(
                entry,
                compute_s=Stat(entry.compute_s.median * part / slow),
                total_s=Stat(entry.total_s.median * part / slow),
            )
            if entry.plan == "local:int8"
            else entry
            for entry in perf.measurements
        ]
        model = CostModel(replace(perf, measurements=tuple(entries)))
        return model.predict(replace(plan, precision="int8"), batch, LENGTH, STATE)

    usual, faster = predicted(part), predicted(part * smaller)
    assert faster.compute_s <= usual.compute_s * (1 + 1e-9)
    assert faster.comm_s >= usual.comm_s - 1e-9
    assert faster.total_s <= usual.total_s * (1 + 1e-9) or usual.comm_s == 0.0 or plan.lag


@given(batch=st.integers(1, 40), more=st.integers(1, 10), bandwidth_bps=st.floats(1e6, 1e10))
def test_predictions_never_fall_as_the_batch_grows(batch, more, bandwidth_bps):
    model, link = model_of(), LinkState(bandwidth_bps, 0.001)
    for text in ("seq:2:L10:int8", "batch:2:half", "local:int8"):
        plan = Plan.parse(text)
        fewer = model.predict(plan, batch + 1, LENGTH, link).total_s
        assert model.predict(plan, batch + 1 + 2 * more, LENGTH, link).total_s >= fewer * 0.999


@pytest.mark.parametrize("off", [1.5, 0.8])
def test_a_few_measurements_correct_the_rest(off):
    """What is more are fixed costs, what is less is gained with every row."""
    (one,) = as_measured("seq:2:L10:int8", batches=(1,))
    once_s = one.compute_s.median
    slower = replace(one, compute_s=Stat(off * once_s))
    perf = make_map(shapes=SHAPES)
    derived = CostModel(perf)
    corrected = CostModel(replace(perf, measurements=(*perf.measurements, slower)))
    plan = Plan.parse("seq:2:L10:int8")
    before, after = (each.predict(plan, 8, LENGTH, STATE) for each in (derived, corrected))
    expected_s = before.compute_s * off if off < 1 else before.compute_s + (off - 1) * once_s
    assert after.compute_s == pytest.approx(expected_s)
    assert after.derived and not corrected.predict(plan, 1, LENGTH, STATE).derived
    # Others that split the positions as often are off alike; one node alone is not.
    for text, alike in (
        ("seq:2:full:int8", True),
        ("seq:2:full:half", False),
        ("local:int8", False),
    ):
        other = Plan.parse(text)
        before, after = (each.predict(other, 8, LENGTH, STATE) for each in (derived, corrected))
        assert after.compute_s == pytest.approx(expected_s if alike else before.compute_s)


def test_rows_are_predicted_from_nodes_at_the_precision():
    plan, law = Plan.parse("batch:2:int8"), Truth()
    predicted = model_of().predict(plan, 8, LENGTH, LinkState(1e12, 0.0))
    assert predicted.compute_s == pytest.approx(PARTS["int8"] * law.local_s(4))
    assert not predicted.derived
    assert not model_of().predict(Plan.parse("local:int8"), 8, LENGTH, STATE).derived


def test_what_splits_cost_each_other_in_float32_they_cost_at_other_precisions_too():
    perf = make_map(shapes=SHAPES)
    derived_s = CostModel(perf).predict(Plan.parse("batch:2"), 8, LENGTH, STATE).total_s
    split = replace(perf.measurements[3], plan="batch:2", total_s=Stat(1.3 * derived_s))
    together = CostModel(replace(perf, measurements=(*perf.measurements, split)))
    plan = Plan.parse("batch:2:int8")
    alone_s = CostModel(perf).predict(plan, 8, LENGTH, STATE).compute_s
    assert together.predict(plan, 8, LENGTH, STATE).compute_s == pytest.approx(1.3 * alone_s)


def unlike(factor, kind="pi", alone=True):
    """A map whose helper was measured alone in float32 only, so many times as slow."""
    perf = make_map(shapes=SHAPES, nodes=("board", kind))
    slow = [
        replace(entry, plan="local@node1", compute_s=Stat(factor * s), total_s=Stat(factor * s))
        for entry in perf.measurements
        if entry.plan == "local" and (s := entry.compute_s.median)
    ]
    return CostModel(replace(perf, measurements=(*perf.measurements, *(slow if alone else ()))))


@pytest.mark.parametrize(
    ("factor", "kind", "slower", "derived"),
    [(2.0, "pi", 2.0, True), (1.05, "board", 1.0, False), (2.0, "board", 2.0, True)],
)
def test_another_node_gains_what_the_first_one_does(factor, kind, slower, derived):
    """A node of the same kind is taken for equal, unless it was clearly slower in float32."""
    found = unlike(factor, kind).predict(Plan.parse("local@node1:int8"), 8, LENGTH, STATE)
    assert found.compute_s == pytest.approx(slower * PARTS["int8"] * Truth().local_s(8))
    assert (found.derived, found.extrapolated) == (derived, derived)


def test_a_node_that_nobody_measured_alone_is_left_out():
    with pytest.raises(PlanError, match="not measured each of its nodes alone"):
        unlike(2.0, alone=False).predict(Plan.parse("batch:2:int8"), 8, LENGTH, STATE)


def test_a_precision_that_nobody_measured_is_left_out_with_the_command():
    model = model_of("seq:2:L10")
    assert model.precisions == ("float32",)
    for text in ("seq:2:L10:int8", "batch:2:int8", "local:int8"):
        with pytest.raises(PlanError, match="in int8; `prism profile MODEL --precisions float32"):
            model.predict(Plan.parse(text), 8, LENGTH, STATE)


def test_an_unmeasured_loss_is_never_chosen_and_the_reason_names_the_command():
    decision = decide(model_of(), 8, LENGTH, FAST, objective=LEAVE)
    found = told(decision)
    assert decision.choice.precision == "float32"
    for text in ("local:int8", "batch:2:half", "seq:2:full:int8"):
        assert not found[text].allowed and "prism evaluate MODEL DATA --map" in found[text].reason
    assert "derived from float32" in found["seq:2:full:int8"].reason


def test_one_loss_holds_for_all_plans_that_exchange_nothing_and_for_no_other():
    drops = {"local:int8": 0.01, "seq:2:L10": 0.01}
    decision = decide(model_of(drops=drops), 8, LENGTH, FAST, objective=LEAVE)
    found = told(decision)
    assert {text for text in found if found[text].accuracy_drop == 0.01 and "int8" in text} == {
        *("local:int8", "batch:2:int8", "batch:3:int8")
    }
    assert found["seq:2:L10:int8"].accuracy_drop is None
    assert str(decision.choice).startswith("batch:") and decision.choice.precision == "int8"
    exact = decide(model_of(drops=drops), 8, LENGTH, FAST)
    assert exact.choice.exact


def test_a_sequence_plan_needs_its_own_loss_and_a_derived_one_may_then_be_chosen():
    """Where exchanges cost nothing it beats the board alone at a batch of one."""
    model = model_of(drops={"seq:2:L10:int8": 0.02}, truth=Truth(hidden_s=0.1))
    decision = decide(model, 1, LENGTH, LinkState(1e11, 0.0), objective=LEAVE)
    assert str(decision.choice) == "seq:2:L10:int8"
    assert told(decision)["seq:2:L10:int8"].derived


def test_unequal_rows_at_a_precision_are_solved_for_it():
    slow = LinkState(30e6, 0.001)
    model = model_of(drops={"local:int8": 0.0})
    decision = decide(model, 9, LENGTH, slow, alive=["node0", "node1"], objective=LEAVE)
    split = next(
        each.plan
        for each in decision.candidates
        if each.plan.strategy == "batch" and each.plan.precision == "int8" and each.plan.shares
    )
    assert split.shares[0] > split.shares[1]


def test_local_on_the_first_node_is_one_plan_with_or_without_its_name():
    model = model_of(drops={"local:int8": 0.0})
    allow = [Plan.parse("local@node0:int8"), Plan.parse("local:int8")]
    found = told(decide(model, 1, LENGTH, STATE, allow=allow))
    assert "local@node0:int8" not in found and found["local:int8"].allowed
    away = decide(model, 1, LENGTH, STATE, alive=["node1"], objective=LEAVE)
    assert str(away.choice) == "local@node1:int8"


def test_while_the_first_node_is_busy_another_one_answers_at_a_precision():
    model = model_of(drops={"local:int8": 0.0})
    busy = Load({"node0": 5.0})
    decision = decide(model, 1, LENGTH, FAST, objective=LEAVE, load=busy)
    assert str(decision.choice) == "local@node1:int8"


def ran(text, *computed_s):
    records = [
        RunRecord(f"node{index}", Plan.parse(text), 4, LENGTH, 9.0, seconds, comm_s=1.0)
        for index, seconds in enumerate(computed_s)
    ]
    return replace(records[0], per_node={each.node: each for each in records[1:]})


def test_runs_are_judged_by_measurements_only():
    model = model_of()
    for text in ("seq:2:L10:int8", "seq:2:full:half"):
        assert model.link_sample(ran(text, 1.0, 1.0)) is None
        assert model.compute_samples(ran(text, 1.0, 1.0)) == {}
    seconds = PARTS["int8"] * Truth().local_s(4)
    assert model.compute_samples(ran("local:int8", 2 * seconds)) == {"node0": pytest.approx(2.0)}
    assert unlike(2.0).compute_samples(replace(ran("local@node1:int8", 1.0), node="node1")) == {}


def test_energy_follows_power_and_time():
    perf = make_map(shapes=SHAPES, energy=True)
    model = CostModel(perf)
    plan = Plan.parse("seq:2:L10:int8")
    predicted = model.predict(plan, 4, LENGTH, STATE)
    assert predicted.energy_j == pytest.approx(2 * 5.0 * predicted.total_s, rel=0.02)
    hot = [
        replace(entry, energy_j=Stat(2 * entry.energy_j.median))
        if entry.plan == "local:int8"
        else entry
        for entry in perf.measurements
    ]
    twice = CostModel(replace(perf, measurements=tuple(hot))).predict(plan, 4, LENGTH, STATE)
    assert twice.energy_j == pytest.approx(2 * predicted.energy_j)


def test_what_a_map_covers_includes_what_derives():
    plans = {str(plan) for plan in covered_plans(make_map(shapes=SHAPES))}
    assert {"local", "local:int8", "seq:2:L10", "seq:2:L10:int8", "seq:2:L10:half"} <= plans
    assert len(plans) == 3 + 3 * 3


def test_split_of_positions_at_a_precision_counts_its_own_speed():
    """A throttled helper gets fewer positions, as far as somebody measured what that loses."""
    text = "seq:2:L10:int8"
    entries = [Accuracy(each, 0.9, 0.0) for each in (text, f"{text}:shares=60/40")]
    perf = make_map(shapes=SHAPES, drops={}).with_accuracy(entries)
    decision = decide(
        CostModel(perf), 4, LENGTH, LinkState(1e10, 0.0), slowdown={"node1": 2.0}, objective=LEAVE
    )
    assert "seq:2:L10:int8:shares=60/40" in told(decision)
