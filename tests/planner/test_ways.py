"""What the ways of inputs and outputs say of the links, whatever the plan."""

from dataclasses import replace

import pytest
from tests.planner.clusters import LENGTH, LINK, make_map

from prism.plan import Plan
from prism.planner import CostModel, Links, LinkSample
from prism.record import LinkState, RunRecord

MODEL = CostModel(make_map())
LINKS = Links(LINK.state())


def run(text, *helpers, **own):
    """A record of the first node, and of helpers from node1 on, each of (bytes, s) in and out."""
    base = RunRecord("node0", Plan.parse(text), 4, LENGTH, 9.0)
    others = {
        f"node{index}": replace(
            base,
            node=f"node{index}",
            input_bytes=there[0],
            input_s=there[1],
            output_bytes=back[0],
            output_s=back[1],
        )
        for index, (there, back) in enumerate(helpers, 1)
    }
    return replace(base, per_node=others, **own)


def test_an_input_tells_the_link_of_its_helper():
    record = run("batch:2", ((125_000, 0.1), (40, 0.001)))
    assert MODEL.link_samples(record, LINKS) == {"node1": LinkSample(1e6, 0.1)}


def test_a_helper_alone_tells_by_its_own_record():
    record = run("local@node2", node="node2", input_bytes=125_000, input_s=0.1, output_s=3.0)
    assert MODEL.link_samples(record, LINKS) == {"node2": LinkSample(1e6, 0.1)}
    assert MODEL.link_samples(run("local", input_bytes=125_000, input_s=0.1), LINKS) == {}


def test_a_larger_output_is_the_better_witness():
    record = run("batch:2", ((1000, 0.002), (250_000, 0.3)))
    assert MODEL.link_samples(record, LINKS) == {"node1": LinkSample(2e6, 0.3)}


def test_of_several_helpers_the_last_saw_all_bytes_go_by():
    record = run("batch:3", ((50_000, 0.05), (9, 9.0)), ((75_000, 0.1), (9, 9.0)))
    assert MODEL.link_samples(record, LINKS) == {"node2": LinkSample(1e6, 0.1)}


def test_a_first_node_that_is_not_the_maps_may_have_waited_for_others():
    record = run("batch:node2+node1", ((125_000, 0.1), (0, 0.0)), node="node2", input_s=7.0)
    assert MODEL.link_samples(record, LINKS) == {"node1": LinkSample(1e6, 0.1)}


@pytest.mark.parametrize(("seconds", "latency_s"), [(0.004, 0.0), (0.019, 0.01)])
def test_a_short_way_only_bounds_the_link(seconds, latency_s):
    record = run("batch:2", ((125_000, seconds), (0, 0.0)))
    found = MODEL.link_samples(record, Links(LinkState(1e8, latency_s)))
    assert found == {"node1": LinkSample(1e6, seconds, at_most=True)}


def test_a_failed_run_tells_nothing():
    record = run("batch:2", ((125_000, 0.1), (0, 0.0)), outcome="recovered")
    assert MODEL.link_samples(record, LINKS) == {}


def test_one_run_is_one_witness_for_a_link():
    """An input that was timed goes before the stalls of the same run, and these before a bound."""
    stalls = run("seq:2:L10", ((1000, 0.001), (0, 0.0)), comm_s=0.4, compute_s=0.1)
    (found,) = MODEL.link_samples(stalls, LINKS).values()
    assert found == MODEL.link_sample(stalls)
    both = run("seq:2:L10", ((125_000, 0.1), (0, 0.0)), comm_s=0.4, compute_s=0.1)
    assert MODEL.link_samples(both, LINKS) == {"node1": LinkSample(1e6, 0.1)}


def test_stalls_are_put_down_to_the_slowest_link_and_hidden_exchanges_to_all():
    links = Links(LINK.state(), {"node1": LinkState(1e8, 0.001), "node2": LinkState(5e7, 0.001)})
    helpers = ((0, 0.0), (0, 0.0)), ((0, 0.0), (0, 0.0))
    assert set(MODEL.link_samples(run("seq:3:L10", *helpers, comm_s=0.4), links)) == {"node2"}
    hidden = MODEL.link_samples(run("seq:3:L10", *helpers), links)
    assert set(hidden) == {"node1", "node2"} and all(each.at_most for each in hidden.values())
