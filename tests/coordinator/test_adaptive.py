"""What is believed of links and nodes follows the runs: not one of them alone, but any two."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, PAYLOAD, make_map

from prism.coordinator.adaptive import Adaptive
from prism.perfmap import ClusterIdentity, CodingTimes
from prism.plan import Plan
from prism.planner import CostModel, Wanted
from prism.record import LinkState, RunRecord

PERF = make_map()
MODEL = CostModel(PERF)
BATCH = 4
PLANS = st.sampled_from(["local@node1", "batch:2", "seq:2:L10", "seq:2:L10:lag1", "seq:2:full"])
# Slower or faster by more than what scatters by itself.
BAD = st.floats(0.01, 0.5) | st.floats(2.0, 100.0)


def adaptive():
    return Adaptive(PERF, ClusterIdentity(PERF.model_hash, PERF.nodes))


def ran(text, *, bandwidth_bps=LINK.bandwidth_bps, slower=1.0):
    """What a run of a plan costs over a link, on a helper that computes `slower`."""
    plan = Plan.parse(text)
    link = LinkState(bandwidth_bps, LINK.latency_s)
    cost = MODEL.predict(plan, BATCH, LENGTH, link)
    nbytes = round(PAYLOAD.inputs(BATCH, LENGTH) / (2 if plan.strategy == "batch" else 1))
    helper = RunRecord(
        "node1", plan, BATCH, LENGTH, 9.0, cost.compute_s * slower,
        input_s=8 * nbytes / bandwidth_bps + link.latency_s, input_bytes=nbytes,
    )  # fmt: skip
    if plan.strategy == "local":
        return helper
    longer_s = cost.compute_s * max(0.0, slower - 1.0)
    own = replace(
        helper, node="node0", compute_s=cost.compute_s, comm_s=cost.comm_s + longer_s,
        input_s=cost.input_s, input_bytes=0,
    )  # fmt: skip
    return replace(own, per_node={"node1": helper})


def link(each):
    return each.slowest_link.bandwidth_bps


def watch(each, records, begun_s=1.0):
    for place, record in enumerate(records):
        each.observe(record, begun_s + 0.1 * place)


@given(plan=PLANS, mbps=st.floats(2, 60))
def test_runs_of_any_plan_lead_to_the_link_as_it_is(plan, mbps):
    each = Adaptive(two_nodes(), ClusterIdentity(PERF.model_hash, PERF.nodes[:2]))
    watch(each, [ran(plan, bandwidth_bps=mbps * 1e6)] * 30)
    assert link(each) == pytest.approx(mbps * 1e6, rel=0.1)


@given(plans=st.lists(PLANS, min_size=1, max_size=8), bad_plan=PLANS, factor=BAD)
def test_one_bad_run_moves_no_link(plans, bad_plan, factor):
    each = adaptive()
    watch(each, map(ran, plans))
    before = link(each)
    assert before == pytest.approx(LINK.bandwidth_bps, rel=1e-6)
    watch(each, [ran(bad_plan, bandwidth_bps=LINK.bandwidth_bps * factor)], begun_s=2.0)
    assert link(each) == pytest.approx(before)
    watch(each, map(ran, plans), begun_s=2.1)
    watch(each, [ran(bad_plan, bandwidth_bps=LINK.bandwidth_bps * factor)], begun_s=3.0)
    assert link(each) == pytest.approx(before)


@given(one=PLANS, other=PLANS, factor=st.floats(0.02, 0.5), agreeing=st.floats(0.5, 2.0))
def test_two_that_agree_move_it_to_the_nearer(one, other, factor, agreeing):
    each = Adaptive(two_nodes(), ClusterIdentity(PERF.model_hash, PERF.nodes[:2]))
    slower = (factor, min(0.5, factor * agreeing))
    for plan, part in zip((one, other), slower, strict=True):
        watch(each, [ran(plan, bandwidth_bps=LINK.bandwidth_bps * part)])
    assert link(each) == pytest.approx(LINK.bandwidth_bps * max(slower), rel=0.05)


@given(plan=PLANS, slower=st.floats(2.0, 20.0))
def test_a_helper_that_computes_slowly_is_no_slow_link(plan, slower):
    each = adaptive()
    watch(each, [ran(plan, slower=slower)] * 5)
    assert link(each) == pytest.approx(LINK.bandwidth_bps, rel=1e-6)


@given(plan=PLANS, slower=BAD)
def test_one_bad_run_moves_no_prediction_and_two_do(plan, slower):
    each, parsed = adaptive(), Plan.parse(plan)

    def predicted_s(now_s):
        nodes = ("node1",) if parsed.strategy == "local" else ("node0", "node1")
        return each.predicted_s(parsed, nodes, BATCH, LENGTH, now_s)

    well_s = predicted_s(1.0)
    each.observe(ran(plan, slower=slower), 1.0)
    assert predicted_s(1.0) == pytest.approx(well_s)
    each.observe(ran(plan, slower=slower), 1.1)
    if slower > 1:  # a fast helper alone makes no plan faster whose first node is as ever
        assert predicted_s(1.1) > 1.02 * well_s
    elif parsed.strategy == "local":
        assert predicted_s(1.1) < well_s


def with_coding(**times_s):
    entries = tuple(CodingTimes(name, *each) for name, each in times_s.items())
    return Adaptive(replace(PERF, coding=entries), ClusterIdentity(PERF.model_hash, PERF.nodes))


def test_images_are_coded_for_helpers_at_their_live_links():
    each = with_coding(node0=(9e-9, 5e-9), node1=(7e-8, 2e-8))
    # Nothing is known of node2, and node0 needs no link.
    ((name, coding),) = each.image_codings(("node0", "node1", "node2")).items()
    times_s = (coding.compress_per_byte_s, coding.decompress_per_byte_s)
    assert (name, times_s) == ("node1", (9e-9, 2e-8))
    assert coding.link.bandwidth_bps == LINK.bandwidth_bps
    assert coding.pays(150_000, 0.1) and not coding.pays(150_000, 0.6)
    watch(each, [ran("local@node1", bandwidth_bps=LINK.bandwidth_bps / 10)] * 10)
    assert each.image_codings(("node1",))["node1"].pays(150_000, 0.6)
    assert each.image_codings(("node0",)) == {}


def test_without_the_figures_no_image_is_coded():
    names = ("node0", "node1", "node2")
    assert adaptive().image_codings(names) == {}
    assert with_coding(node1=(9e-9, 5e-9)).image_codings(names) == {}
    assert with_coding(node0=(9e-9, 5e-9)).image_codings(names) == {}


def two_nodes():
    return make_map(shapes=("seq:2:full", "seq:2:L10", "seq:2:L10:lag1"), nodes=("board", "board"))


def test_the_choice_knows_what_comes_back():
    """Rows of every position come back over a slow link, or one vector."""
    rows = replace(PERF, payload=replace(PAYLOAD, output_bytes=0, output_bytes_per_position=3072))
    each = Adaptive(rows, ClusterIdentity(PERF.model_hash, PERF.nodes))
    names = [node.name for node in PERF.nodes]
    whole = each.choose(16, LENGTH, names, 1.0)
    pooled = each.choose(16, LENGTH, names, 1.0, wanted=Wanted("pooled"))
    assert pooled.predicted_s < whole.predicted_s
    assert pooled.predicted_s == each.predicted_s(
        pooled.choice, pooled.nodes, 16, LENGTH, 1.0, Wanted("pooled")
    )
