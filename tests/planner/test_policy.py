"""The choice keeps its promises, whatever the map says and whoever is alive."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, make_map

from prism.errors import InputError, PlanError
from prism.perfmap import Accuracy, PerformanceMap, Stat
from prism.plan import Objective, Plan
from prism.planner import CostModel, Planner, decide
from prism.record import LinkState

LOCAL = Plan()
PAPER = [Plan.parse(text) for text in ("local", "seq:2:full", "seq:2:L10")]
MEASURED = make_map(energy=True)
NAMES = [node.name for node in MEASURED.nodes]


def by_text(decision):
    return {str(candidate.plan): candidate for candidate in decision.candidates}


@pytest.mark.parametrize(
    ("batch", "choice"),
    [(1, "local"), (2, "local"), (4, "local")] + [(b, "seq:2:L10") for b in (8, 16, 32)],
)
def test_the_papers_plans_are_chosen_as_published(batch, choice):
    model = CostModel(PerformanceMap.paper())
    link = model.map.link.state()
    decision = decide(model, batch, 197, link, allow=PAPER)
    assert str(decision.choice) == choice
    full = by_text(decision)["seq:2:full"].predicted_s
    assert 0.645 <= 1 - decision.predicted_s / full <= 0.775
    lossy = Objective(max_accuracy_drop=0.0237)
    exact_too = by_text(decide(model, batch, 197, link, objective=lossy))
    assert exact_too["seq:2:L10"].allowed


@pytest.mark.parametrize(
    ("batch", "predicted_s"),
    [(2, 0.0806 + 0.003), (4, 0.1413 + 0.003), (8, 0.2498 + 0.003), (32, 0.946 + 0.003)],
)
def test_splitting_the_batch_beats_every_published_plan(batch, predicted_s):
    model = CostModel(PerformanceMap.paper())
    lossy = Objective(max_accuracy_drop=0.1)
    decision = decide(model, batch, 197, model.map.link.state(), objective=lossy)
    assert str(decision.choice) == "batch:2"
    assert decision.predicted_s == pytest.approx(predicted_s, rel=0.003)
    assert decision.predicted_s < 0.75 * min(
        candidate.predicted_s
        for candidate in decision.candidates
        if candidate.plan != decision.choice
    )


budgets = st.floats(0, 1)
links = st.builds(LinkState, st.floats(1e5, 1e10), st.floats(0, 0.1))
helpers = st.lists(st.sampled_from(NAMES[1:]), unique=True, max_size=2)
objectives = st.builds(
    Objective,
    st.sampled_from(["latency", "energy", "edp"]),
    max_accuracy_drop=budgets,
    point_estimate=st.booleans(),
)


@st.composite
def maps(draw):
    """The measured map with every time and every drop redrawn."""

    def stat(high):
        return Stat(draw(st.floats(1e-4, high)))

    entries = tuple(
        replace(entry, total_s=stat(2), compute_s=stat(1), comm_s=stat(1), energy_j=stat(9))
        for entry in MEASURED.measurements
        if entry.batch in (2, 8)
    )
    accuracy = tuple(
        Accuracy(
            shape,
            0.5,
            draw(st.floats(-0.1, 0.2)),
            100,
            drop_high=draw(st.none() | st.floats(-0.1, 0.3)),
        )
        for shape in ("seq:2:L10", "seq:3:L10")
    )
    return replace(MEASURED, measurements=entries, accuracy=accuracy)


@given(
    perf=maps(),
    batch=st.integers(1, 12),
    link=links,
    others=helpers,
    objective=objectives,
    current=st.sampled_from([None, *MEASURED.by_shape, "batch:3", "local@node1"]),
)
def test_the_three_promises(perf, batch, link, others, objective, current):
    alive = ["node0", *others]
    current = Plan.parse(current) if current else None
    decision = decide(
        CostModel(perf), batch, LENGTH, link, alive=alive, objective=objective, current=current
    )
    found = by_text(decision)
    chosen, local = found[str(decision.choice)], found["local"]
    assert chosen.allowed and local.allowed
    for candidate in decision.candidates:
        assert set(candidate.plan.nodes) <= set(alive)
        if candidate.allowed and not candidate.plan.exact:
            assert objective.max_accuracy_drop > 0
            assert candidate.accuracy_drop <= objective.max_accuracy_drop
            upper = candidate.accuracy_drop_high
            if upper is not None and not objective.point_estimate:
                assert upper <= objective.max_accuracy_drop

    def value(candidate):
        latency, energy = candidate.predicted_s, candidate.energy_j
        return {"latency": latency, "energy": energy, "edp": latency * energy}[objective.metric]

    assert value(chosen) <= value(local)
    if current is None:
        assert value(chosen) == min(value(c) for c in decision.candidates if c.allowed)


def test_a_lossy_plan_needs_a_measured_drop_within_the_budget():
    model, link = CostModel(make_map()), LinkState(1e9, 0.0)
    for budget, allowed, reason in (
        (0.0, False, "only exact"),
        (0.019, False, "loses 0.0200 of accuracy, more than the 0.019 allowed"),
        (0.02, True, "chosen for its predicted latency"),
    ):
        objective = Objective(max_accuracy_drop=budget)
        candidate = by_text(decide(model, 1, LENGTH, link, objective=objective))["seq:2:L10"]
        assert candidate.allowed is allowed and reason in candidate.reason
    unknown = by_text(decide(model, 1, LENGTH, link, objective=Objective(max_accuracy_drop=1)))
    assert unknown["seq:3:L10"].accuracy_drop is None
    assert (
        "never measured on inputs as long as these; run `prism evaluate MODEL DATA --map MAP`"
        in (unknown["seq:3:L10"].reason)
    )


def test_a_budget_is_compared_with_the_upper_end_of_the_interval_unless_told_otherwise():
    entry = Accuracy("seq:2:L10", 0.97, 0.005, 400, "", "agreement", 0.001, 0.012)
    model, link = CostModel(replace(make_map(), accuracy=(entry,))), LinkState(1e9, 0.0)
    for budget, point_estimate, allowed in (
        (0.012, False, True),
        (0.01, False, False),
        (0.01, True, True),
        (0.004, True, False),
    ):
        objective = Objective("latency", budget, point_estimate)
        found = by_text(decide(model, 1, LENGTH, link, objective=objective))["seq:2:L10"]
        assert found.allowed is allowed, objective
        told = (found.accuracy_drop, found.accuracy_drop_low, found.accuracy_drop_high)
        assert (*told, found.accuracy_metric) == (0.005, 0.001, 0.012, "agreement")
    wide = by_text(decide(model, 1, LENGTH, link, objective=Objective("latency", 0.01)))
    assert re.search(
        "may lose 0.0120 of agreement, .*upper end .* around 0.0050.*--map MAP.*--point-estimate",
        wide["seq:2:L10"].reason,
    )
    assert "compared: the measured value" in found.reason


def test_exact_plans_are_told_to_lose_nothing():
    local = by_text(decide(CostModel(make_map()), 1, LENGTH, LINK.state()))["local"]
    assert (local.accuracy_drop, local.accuracy_drop_high, local.accuracy_metric) == (0, 0, None)


def test_an_allow_list_restricts_and_admits():
    model, link = CostModel(make_map()), LinkState(1e9, 0.0)
    decision = decide(model, 8, LENGTH, link, allow=[Plan.parse("seq:3:L10")])
    assert str(decision.choice) == "seq:3:L10"
    assert {c for c, value in by_text(decision).items() if value.allowed} == {"local", "seq:3:L10"}
    assert by_text(decision)["batch:3"].reason == "not among the plans allowed"
    slow = decide(model, 8, LENGTH, LinkState(1e6, 0.1), allow=[Plan.parse("seq:3:L10")])
    assert slow.choice == LOCAL


def test_an_allowed_plan_without_its_nodes_is_left_out_with_the_reason():
    model = CostModel(make_map())
    named = [Plan.parse("seq:3:L10"), Plan.parse("seq:2:L99"), Plan.parse("local@ghost")]
    decision = decide(model, 8, LENGTH, LINK.state(), alive=["node0", "node2"], allow=named)
    reasons = {entry.plan: entry.reason for entry in decision.left_out}
    assert decision.choice == LOCAL
    assert "needs 3 nodes" in reasons["seq:3:L10"]
    assert "not measured" in reasons["seq:2:L99"]
    assert "ghost" in reasons["local@ghost"]


def flapping(model, margin, factors):
    """Return the choices while the bandwidth goes back and forth around the crossover."""
    planner = Planner(model, margin)
    allow = [Plan.parse("seq:2:L10")]
    crossing = 182.4917e6
    return [
        str(planner.decide(8, 197, LinkState(crossing * factor, 0.0), allow=allow).choice)
        for factor in factors
    ]


def switches(choices):
    return sum(before != after for before, after in pairwise(choices))


def test_a_flapping_link_does_not_make_the_choice_flap():
    model = CostModel(PerformanceMap.paper())
    flaps = [0.95, 1.05] * 10
    assert switches(flapping(model, 0.0, flaps)) == 19
    assert switches(flapping(model, 0.05, flaps)) == 0
    assert set(flapping(model, 0.05, flaps)) == {"local"}
    assert flapping(model, 0.05, [0.95, 1.05, 2.0, 1.05, 0.95]) == [
        "local",
        "local",
        "seq:2:L10",
        "seq:2:L10",
        "local",
    ]


def test_a_kept_plan_says_why_the_better_one_waits():
    model = CostModel(PerformanceMap.paper())
    link = LinkState(182.4917e6 * 1.05, 0.0)
    decision = decide(model, 8, 197, link, allow=PAPER, current=LOCAL)
    assert decision.choice == LOCAL
    assert "better, but by less than the 5%" in by_text(decision)["seq:2:L10"].reason


def test_each_batch_size_holds_on_to_its_own_plan():
    planner = Planner(CostModel(PerformanceMap.paper()))
    link = planner.model.map.link.state()
    for _ in range(3):
        assert str(planner.decide(1, 197, link, allow=PAPER).choice) == "local"
        assert str(planner.decide(8, 197, link, allow=PAPER).choice) == "seq:2:L10"


def test_a_held_plan_whose_node_died_is_let_go():
    planner = Planner(CostModel(make_map()))
    fast, allow = LinkState(1e9, 0.0), [Plan.parse("seq:2:L10")]
    assert str(planner.decide(8, LENGTH, fast, allow=allow).choice) == "seq:2:L10"
    after = planner.decide(8, LENGTH, fast, alive=["node0", "node2"], allow=allow)
    assert str(after.choice) == "seq:2:L10"
    assert planner.decide(8, LENGTH, fast, alive=["node0"], allow=allow).choice == LOCAL


def test_the_document_has_the_agreed_keys():
    document = decide(CostModel(make_map()), 8, LENGTH, LINK.state()).to_dict()
    assert json.loads(json.dumps(document)) == document
    assert {"choice", "predicted_s", "candidates"} <= set(document)
    assert document["choice"] in [entry["plan"] for entry in document["candidates"]]
    for entry in document["candidates"]:
        parts = ("compute_s", "staging_s", "comm_s", "input_s", "output_s", "other_s")
        assert entry["predicted_s"] == pytest.approx(sum(entry[part] for part in parts))
        assert {"energy_j", "accuracy_drop", "allowed", "reason"} <= set(entry)
        assert entry["reason"]


def test_energy_chooses_by_energy():
    model = CostModel(make_map(energy=True))
    fast = LinkState(1e9, 0.0)
    assert decide(model, 8, LENGTH, fast).choice.size == 3
    energy = decide(model, 8, LENGTH, fast, objective=Objective("energy"))
    least = min(c.energy_j for c in energy.candidates if c.allowed)
    assert by_text(energy)[str(energy.choice)].energy_j == least


def test_a_guess_beyond_the_measured_is_flagged_for_what_it_concerns():
    """The paper gives local's energy up to batch 4 and its time up to 32."""
    model = CostModel(PerformanceMap.paper())
    link = model.map.link.state()
    expected = [("latency", 8, False), ("energy", 8, True), ("latency", 33, True)]
    for metric, batch, flagged in expected:
        decision = decide(model, batch, 197, link, objective=Objective(metric))
        assert by_text(decision)["local"].extrapolated is flagged


@pytest.mark.parametrize("metric", ["energy", "edp"])
def test_energy_without_a_meter_is_refused(metric):
    with pytest.raises(InputError, match="no energy"):
        decide(CostModel(make_map()), 8, LENGTH, LINK.state(), objective=Objective(metric))


def test_a_plan_without_energy_cannot_win_by_energy():
    perf = make_map(energy=True)
    entries = tuple(
        replace(entry, energy_j=None) if entry.plan == "seq:2:full" else entry
        for entry in perf.measurements
    )
    model = CostModel(replace(perf, measurements=entries))
    decision = decide(model, 8, LENGTH, LINK.state(), objective=Objective("energy"))
    refused = by_text(decision)["seq:2:full"]
    assert not refused.allowed and "no energy measured" in refused.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "at least 1"),
        ({"length": 0}, "at least 1"),
        ({"margin": 1.0}, "margin"),
        ({"margin": -0.1}, "margin"),
    ],
)
def test_impossible_requests_are_refused(change, message):
    values = {"batch": 8, "length": LENGTH, "link": LINK.state(), **change}
    with pytest.raises(InputError, match=message):
        decide(CostModel(make_map()), **values)


def test_impossible_links_and_objectives_are_refused():
    with pytest.raises(InputError, match="bandwidth"):
        LinkState(-1.0, 0.0)
    with pytest.raises(InputError, match="objective"):
        Objective("speed")
    for budget in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="max_accuracy_drop"):
            Objective(max_accuracy_drop=budget)


@pytest.mark.parametrize(
    ("alive", "message"), [(["node1", "node0"], "first node0"), (["node0", "ghost"], "ghost")]
)
def test_nodes_that_the_map_does_not_know_are_refused(alive, message):
    with pytest.raises(PlanError, match=message):
        decide(CostModel(make_map()), 8, LENGTH, LINK.state(), alive=alive)
