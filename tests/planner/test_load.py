"""The choice under load: split while nodes are free, whole requests when they are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, make_map

from prism.errors import InputError
from prism.plan import Objective, Plan
from prism.planner import CostModel, Load, Planner, decide
from prism.record import LinkState

MODEL = CostModel(make_map(energy=True))
FAST = LinkState(1e9, 0.0005)
NAMES = ["node0", "node1", "node2"]


def by_text(decision):
    return {str(candidate.plan): candidate for candidate in decision.candidates}


def test_a_split_wins_while_nothing_waits_and_whole_requests_when_much_does():
    """What a split costs beside the work itself is taken from those who wait."""
    link = LinkState(100e6, 0.003)
    calm = decide(MODEL, 8, LENGTH, link, load=Load())
    assert calm.choice.size == 3
    busy = decide(MODEL, 8, LENGTH, link, load=Load(waiting=50))
    assert busy.choice == Plan() and busy.nodes == ("node0",)


def test_under_load_requests_go_to_the_node_that_is_free_first():
    load = Load({"node0": 0.30, "node1": 0.02}, waiting=20)
    decision = decide(MODEL, 4, LENGTH, FAST, load=load, alive=NAMES[:2])
    assert (str(decision.choice), decision.nodes) == ("local@node1", ("node1",))
    found = by_text(decision)
    assert found["local"].queue_s == 0.30
    assert found["local@node1"].queue_s == 0.02
    assert found["batch:2"].queue_s == 0.30
    swapped = decide(MODEL, 4, LENGTH, FAST, load=Load({"node1": 0.3}, waiting=20), alive=NAMES[:2])
    assert swapped.choice == Plan()


def test_many_requests_in_turn_fill_all_nodes():
    """A queue worked off as the decisions say: every node gets its part, none two thirds."""
    free_s = dict.fromkeys(NAMES, 0.0)
    taken = dict.fromkeys(NAMES, 0)
    for waiting in range(30, 0, -1):
        decision = decide(MODEL, 4, LENGTH, FAST, load=Load(dict(free_s), waiting))
        ends_s = decision.predicted_s + max(free_s[name] for name in decision.nodes)
        for name in decision.nodes:
            free_s[name], taken[name] = ends_s, taken[name] + 1
    assert min(taken.values()) >= 8
    assert max(free_s.values()) < 1.3 * sum(free_s.values()) / 3


def test_a_nodes_work_is_waited_for_only_by_plans_that_use_it():
    found = by_text(decide(MODEL, 8, LENGTH, FAST, load=Load({"node2": 5.0})))
    waits = {text: candidate.queue_s for text, candidate in found.items()}
    assert waits["batch:3"] == waits["seq:3:L10"] == waits["local@node2"] == 5.0
    assert waits["batch:2"] == waits["local"] == waits["local@node1"] == 0.0


def test_a_node_without_rows_is_not_waited_for():
    plan = Plan.parse("batch:2:shares=0/1")
    load = Load({"node0": 5.0})
    candidate = by_text(decide(MODEL, 8, LENGTH, FAST, load=load, allow=[plan]))[str(plan)]
    assert candidate.queue_s == 0.0 and candidate.nodes == ("node0", "node1")


def test_without_load_the_other_nodes_are_not_asked_for():
    assert "local@node1" not in by_text(decide(MODEL, 8, LENGTH, FAST))


def test_energy_does_not_wait_and_edp_does():
    load = Load({"node0": 100.0})
    energy = decide(MODEL, 8, LENGTH, FAST, objective=Objective("energy"), load=load)
    calm = decide(MODEL, 8, LENGTH, FAST, objective=Objective("energy"), load=Load())
    assert energy.choice == calm.choice
    edp = decide(MODEL, 8, LENGTH, FAST, objective=Objective("edp"), load=load)
    assert "node0" not in edp.nodes
    idle = decide(MODEL, 8, LENGTH, FAST, objective=Objective("edp"), load=Load())
    assert "node0" in idle.nodes


loads = st.builds(
    Load,
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 10)),
    st.integers(0, 100),
)


@given(load=loads, batch=st.integers(1, 16), bandwidth=st.floats(1e5, 1e10), held=st.booleans())
def test_no_plan_is_worth_less_than_local_waiting_included(load, batch, bandwidth, held):
    current = Plan.parse("seq:3:full") if held else None
    link = LinkState(bandwidth, 0.001)
    decision = decide(MODEL, batch, LENGTH, link, load=load, current=current)

    def value(candidate):
        used = len(candidate.nodes)
        queued_s = load.waiting * candidate.predicted_s * used / 3
        return candidate.queue_s + candidate.predicted_s + queued_s

    found = by_text(decision)
    chosen = found[str(decision.choice)]
    assert value(chosen) <= value(found["local"]) * (1 + 1e-9)
    if not held:
        best = min(value(each) for each in found.values() if each.allowed)
        assert value(chosen) == pytest.approx(best)


def test_a_planner_under_load_goes_where_there_is_room():
    planner = Planner(MODEL)
    alive = NAMES[:2]
    chosen = [
        planner.decide(4, LENGTH, FAST, alive=alive, load=Load({busy: 0.5}, waiting=9)).nodes
        for busy in ("node0", "node1", "node0")
    ]
    assert chosen == [("node1",), ("node0",), ("node1",)]


@pytest.mark.parametrize(
    ("free_in_s", "waiting"),
    [({"node0": -1.0}, 0), ({"node0": float("nan")}, 0), ({"node0": float("inf")}, 0), ({}, -1)],
)
def test_an_impossible_load_is_refused(free_in_s, waiting):
    with pytest.raises(InputError, match="at least 0|0 or more"):
        Load(free_in_s, waiting)


def test_no_load_is_the_same_as_an_empty_one():
    plain = decide(MODEL, 8, LENGTH, LINK.state())
    loaded = decide(MODEL, 8, LENGTH, LINK.state(), load=Load())
    assert (plain.choice, plain.predicted_s) == (loaded.choice, loaded.predicted_s)
