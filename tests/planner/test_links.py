"""A link per helper: no plan is faster for a worse link, and each waits for its own links only."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, make_map

from prism.plan import Plan
from prism.planner import CostModel, Links, decide, sweep_bandwidth
from prism.record import LinkState

MODEL = CostModel(make_map(energy=True))
TEXTS = st.sampled_from(
    ["local", "local@node2", "batch:2", "batch:3", "batch:3:shares=1/2/3", "seq:2:L10"]
    + ["seq:3:L10", "seq:3:L10:lag1", "seq:node0+node2:full"]
)
states = st.builds(LinkState, st.floats(1e5, 1e10), st.floats(0, 0.1))
links = st.fixed_dictionaries({"node1": states, "node2": states})


@given(text=TEXTS, each=links, name=st.sampled_from(["node1", "node2"]), data=st.data())
def test_a_plan_is_never_faster_when_one_link_gets_worse(text, each, name, data):
    worse = replace(
        each[name],
        bandwidth_bps=each[name].bandwidth_bps * data.draw(st.floats(0.01, 1)),
        latency_s=each[name].latency_s + data.draw(st.floats(0, 1)),
    )
    plan = Plan.parse(text)
    before = MODEL.predict(plan, 6, LENGTH, each).total_s
    after = MODEL.predict(plan, 6, LENGTH, {**each, name: worse}).total_s
    assert after >= before * (1 - 1e-9)


@given(text=TEXTS, state=states)
def test_links_all_alike_are_one_link(text, state):
    plan = Plan.parse(text)
    one = MODEL.predict(plan, 6, LENGTH, state)
    assert MODEL.predict(plan, 6, LENGTH, {"node1": state, "node2": state}) == one
    assert MODEL.predict(plan, 6, LENGTH, Links(state)) == one


@given(each=links, other=states)
def test_a_link_that_a_plan_does_not_use_changes_nothing(each, other):
    for text, unused in (("seq:2:L10", "node2"), ("local@node2", "node1"), ("batch:2", "node2")):
        plan = Plan.parse(text)
        before = MODEL.predict(plan, 6, LENGTH, each)
        assert MODEL.predict(plan, 6, LENGTH, {**each, unused: other}) == before


def test_a_sequence_plan_has_the_least_bandwidth_and_the_most_latency():
    fast, slow, far = LinkState(1e9, 0.001), LinkState(2e6, 0.002), LinkState(1e9, 0.08)
    found = Links(fast, {"node1": slow, "node2": far}).slowest(["node1", "node2"])
    assert (found.bandwidth_bps, found.latency_s) == (2e6, 0.08)
    plan = Plan.parse("seq:3:L10")
    each = {"node1": slow, "node2": far}
    assert MODEL.predict(plan, 4, LENGTH, each) == MODEL.predict(plan, 4, LENGTH, found)


def test_a_helper_that_is_not_named_has_the_maps_link():
    plan, slow = Plan.parse("seq:2:full"), LinkState(1e6, 0.1)
    as_measured = MODEL.predict(plan, 4, LENGTH, LINK.state())
    assert MODEL.predict(plan, 4, LENGTH, {"node2": slow}) == as_measured
    assert MODEL.predict(plan, 4, LENGTH, {"node1": slow}).total_s > as_measured.total_s


def test_a_split_by_rows_sends_each_helper_what_its_own_link_bears():
    each = {"node1": LinkState(1e4, 0.001), "node2": LinkState(1e9, 0.001)}
    decision = decide(MODEL, 9, LENGTH, each, allow=None)
    assert str(decision.choice).startswith("batch:node0+node2")
    assert decision.nodes == ("node0", "node2")
    even = decide(MODEL, 9, LENGTH, LinkState(1e9, 0.001))
    assert even.nodes[:2] == ("node0", "node1")


def test_a_sweep_supposes_one_bandwidth_and_keeps_each_latency():
    each = {"node1": LinkState(1e6, 0.002), "node2": LinkState(1e9, 0.05)}
    allow = [Plan.parse("seq:2:L10")]
    found = sweep_bandwidth(MODEL, 8, LENGTH, each, allow=allow)
    alone = sweep_bandwidth(MODEL, 8, LENGTH, each["node1"], allow=allow)
    assert found == alone
    assert Links(LINK.state(), each).at_bandwidth(5e6).to("node2") == LinkState(5e6, 0.05)


def test_one_link_or_several_become_links():
    state, default = LinkState(1e6, 0.0), LinkState(2e6, 0.0)
    assert Links.of(state, default).to("node1") == state
    assert Links.of({"node1": state}, default).to("node2") == default
    given_links = Links(state)
    assert Links.of(given_links, default) is given_links
    assert given_links.slowest([]) == state
