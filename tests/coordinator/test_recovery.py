import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.coordinator.recovery import Placed, fallbacks, place
from prism.errors import PlanError
from prism.plan import Plan

EVERYONE = ("node0", "node1", "node2", "node3")


def instead(text, ready, everyone=EVERYONE):
    return [
        str(each.plan) for each in fallbacks(place(Plan.parse(text), everyone), ready, everyone)
    ]


@pytest.mark.parametrize(
    ("text", "ready", "expected"),
    [
        ("seq:3:full", "012", ["local@node0", "local@node1", "local@node2"]),
        ("seq:3:full", "01", ["seq:2:full", "local@node0", "local@node1"]),
        ("seq:3:full", "02", ["seq:node0+node2:full", "local@node0", "local@node2"]),
        (
            "seq:3:full:shares=1/2/3",
            "12",
            ["seq:node1+node2:full:shares=2/3", "local@node1", "local@node2"],
        ),
        ("seq:3:L10", "01", ["local@node0", "local@node1"]),  # nobody measured seq:2:L10
        ("seq:3:full:f16", "01", ["local@node0", "local@node1"]),
        ("batch:3:shares=0/0/1", "01", ["batch:2", "local@node0", "local@node1"]),
        ("seq:node2+node1:full", "013", ["local@node1", "local@node0", "local@node3"]),
        ("local@node2", "01", ["local@node0", "local@node1"]),
        ("local@node1", "01", ["local@node0"]),
        ("batch:2", "", []),
    ],
)
def test_those_left_answer_together_or_alone(text, ready, expected):
    assert instead(text, [f"node{number}" for number in ready]) == expected


def test_a_named_plan_is_placed_on_its_own_nodes_only():
    named = Plan.parse("seq:node0+node1:full")
    assert place(named, EVERYONE).nodes == ("node0", "node1")
    with pytest.raises(PlanError, match="node1"):
        place(named, ("node0", "node2"))
    assert place(Plan.parse("seq:2:full"), ("node0", "node2")).nodes == ("node0", "node2")


def test_the_key_tells_nodes_apart():
    plan = Plan.parse("seq:2:full")
    assert place(plan, EVERYONE).key != place(plan, EVERYONE[1:]).key
    assert place(plan, EVERYONE).key == place(Plan.parse("seq:node0+node1:full"), EVERYONE).key


@given(
    st.sampled_from(["seq:3:full", "batch:3", "seq:3:L4", "local@node1"]),
    st.sets(st.sampled_from(EVERYONE)),
)
def test_only_nodes_that_are_ready_are_asked(text, ready):
    failed = place(Plan.parse(text), EVERYONE)
    names = [name for name in EVERYONE if name in ready]
    found = fallbacks(failed, names, EVERYONE)
    assert all(set(each.nodes) <= ready and isinstance(each, Placed) for each in found)
    assert failed not in found
    assert all(each.plan.exact for each in found)
    assert {each.nodes for each in found if each.plan.size == 1} >= {
        (name,) for name in names if failed.nodes != (name,)
    }
