"""Predicted costs: exact at measured points, right for a truth that obeys the model, monotone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, SHAPES, Truth, make_map

from prism.errors import MapError, PlanError
from prism.perfmap import Measurement, PerformanceMap, Stat
from prism.plan import Plan
from prism.planner import CostModel
from prism.record import LinkState

PAPER = ("local", "seq:2:full", "seq:2:L10")


@pytest.mark.parametrize("text", PAPER)
@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16, 32])
def test_the_paper_is_reproduced_at_its_own_link(text, batch):
    perf = PerformanceMap.paper()
    plan = Plan.parse(text)
    cost = CostModel(perf).predict(plan, batch, 197, perf.link.state())
    assert cost.total_s == pytest.approx(perf.lookup(plan, batch, 197).total_s.median)


@pytest.mark.parametrize("text", SHAPES)
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("mbps", [5, 20, 60, 100])
def test_a_cluster_that_obeys_the_model_is_predicted_under_a_slower_link(text, batch, mbps):
    """Where the map's link already stalled, any other link follows; no further fit is needed."""
    truth = Truth(hidden_s=0.0002)
    model = CostModel(make_map(truth=truth))
    plan, link = Plan.parse(text), LinkState(mbps * 1e6, 0.002)
    cost = model.predict(plan, batch, LENGTH, link)
    assert cost.comm_s == pytest.approx(truth.comm_s(plan, batch, link))
    assert cost.total_s == pytest.approx(truth.total_s(plan, batch, link))


@pytest.mark.parametrize(("text", "part", "exchanges"), [("", 0.25, 11), (":lag1", 1.0, 10)])
def test_a_hidden_exchange_stalls_once_it_outlasts_the_derived_cover(text, part, exchanges):
    truth = Truth(row_s=0.4, hidden_s=1.0)
    model, plan = CostModel(make_map(truth=truth)), Plan.parse("seq:2:L10" + text)
    cover_s = part * truth.compute_s(plan, 1) / 12
    bits, overhead_s = 10 * 768 * 4 * 8, LINK.fixed_s - LINK.latency_s
    assert truth.comm_s(plan, 1, LINK.state()) == 0.0
    for beyond_s in (-0.0001, 0.002):
        link = LinkState(bits / (cover_s + beyond_s - overhead_s - 0.001), 0.001)
        expected = exchanges * max(0.0, beyond_s)
        assert model.predict(plan, 1, LENGTH, link).comm_s == pytest.approx(expected)


@pytest.mark.parametrize("text", SHAPES)
@pytest.mark.parametrize("mbps", [5, 20, 100])
def test_a_plan_measured_at_one_batch_size_is_not_predicted_to_wait_for_latency_more_often(
    text, mbps
):
    truth = Truth(hidden_s=0.0002)
    model = CostModel(make_map(batches=(1,), truth=truth))
    plan, link = Plan.parse(text), LinkState(mbps * 1e6, LINK.latency_s)
    predicted = model.predict(plan, 8, LENGTH, link)
    true_s = truth.comm_s(plan, 8, link)
    # How much more hides behind the computation of more rows is not known from one.
    assert 0.98 * true_s <= predicted.comm_s <= (1.5 if plan.lag else 1.1) * true_s
    assert predicted.comm_s <= 8 * truth.comm_s(plan, 1, link)
    assert predicted.extrapolated


def test_a_batch_split_is_predicted_from_the_local_curve():
    perf = PerformanceMap.paper()
    model = CostModel(perf)
    cost = model.predict(Plan.parse("batch:2"), 8, 197, perf.link.state())
    assert cost.compute_s == pytest.approx(0.2498)
    # The first row; three more arrive while it is computed.
    assert cost.input_s == pytest.approx(224 * 224 * 3 * 8 / 400e6)
    uneven = model.predict(Plan.parse("batch:2:shares=3/1"), 8, 197, perf.link.state())
    assert uneven.total_s > cost.total_s
    assert uneven.input_s == 0.0, "the first node, with most rows, ends last"
    away = model.predict(Plan.parse("local@node1"), 8, 197, perf.link.state())
    assert away.compute_s == pytest.approx(0.485) and away.input_s > 0


def test_three_nodes_share_the_first_nodes_uplink():
    model = CostModel(make_map(shapes=()))
    cost = model.predict(Plan.parse("batch:3"), 6, LENGTH, LinkState(100e6, 0.001))
    # Two first rows; the others arrive while these are computed.
    assert cost.input_s == pytest.approx(0.001 + 2 * 224 * 224 * 3 * 8 / 100e6)
    assert cost.compute_s == pytest.approx(Truth().local_s(2))


def test_a_measured_split_stands_for_all_batch_sizes():
    """Whatever the rows come to, they cost as much more than alone as in the measured split."""
    perf = make_map(shapes=())
    alone = CostModel(perf).predict(Plan.parse("batch:2"), 8, LENGTH, LINK.state())
    took_s = 1.5 * alone.total_s
    split = Measurement("batch:2", 8, LENGTH, 3, Stat(took_s), Stat(took_s))
    model = CostModel(replace(perf, measurements=(*perf.measurements, split)))
    for batch in (2, 3, 8, 15):
        before = CostModel(perf).predict(Plan.parse("batch:2"), batch, LENGTH, LINK.state())
        after = model.predict(Plan.parse("batch:2"), batch, LENGTH, LINK.state())
        assert after.compute_s == pytest.approx(1.5 * before.compute_s)
        assert after.input_s == before.input_s


def test_energy_follows_time_and_adds_up_over_the_nodes_of_a_split():
    model = CostModel(make_map(energy=True))
    plan = Plan.parse("seq:2:L10")
    here = model.predict(plan, 4, LENGTH, LINK.state())
    slow = model.predict(plan, 4, LENGTH, LinkState(1e6, 0.001))
    assert slow.energy_j / slow.total_s == pytest.approx(here.energy_j / here.total_s)
    assert slow.total_s > 2 * here.total_s
    split = model.predict(Plan.parse("batch:2"), 8, LENGTH, LINK.state())
    assert split.energy_j == pytest.approx(2 * 5.0 * Truth().local_s(4))


@pytest.mark.parametrize(
    ("text", "batch", "length", "reason"),
    [
        ("seq:2:L11", 1, LENGTH, "not measured"),
        ("seq:3:L10", 1, 2, "too few"),
        ("batch:2", 1, LENGTH, "too few rows"),
        ("local@pi", 1, LENGTH, "names pi"),
        ("seq:node0+pi:L10", 1, LENGTH, "names pi"),
    ],
)
def test_what_is_not_covered_is_refused(text, batch, length, reason):
    with pytest.raises(PlanError, match=reason):
        CostModel(make_map()).predict(Plan.parse(text), batch, length, LINK.state())


def test_a_map_without_local_is_refused():
    perf = make_map()
    others = tuple(entry for entry in perf.measurements if entry.plan != "local")
    with pytest.raises(MapError, match="no measurement of local"):
        CostModel(replace(perf, measurements=others))


bandwidths = st.floats(1e5, 1e10)
seconds = st.floats(0, 2)


@st.composite
def noisy_maps(draw):
    """Maps whose every part is noise, as a bad profile's would be."""
    perf = make_map(shapes=("seq:2:L10", "seq:2:full:lag1"), batches=(1, 3, 8))
    entries = []
    for entry in perf.measurements:
        names = ["compute_s"]
        if entry.plan != "local":
            names += ["staging_s", "comm_s", "input_s", "output_s"]
        parts = {name: draw(seconds) for name in names}
        total_s = 0.001 + sum(parts.values()) + draw(seconds)
        values = {name: Stat(value) for name, value in parts.items()}
        entries.append(replace(entry, total_s=Stat(total_s), **values))
    return replace(
        perf,
        measurements=tuple(entries),
        link=draw(st.sampled_from([LINK, PerformanceMap.paper().link])),
    )


TEXTS = st.sampled_from(["local", "batch:2", "batch:3", "seq:2:L10", "seq:2:full:lag1"])


@given(perf=noisy_maps(), text=TEXTS, batch=st.integers(3, 8), low=bandwidths, high=bandwidths)
def test_more_bandwidth_never_costs_more(perf, text, batch, low, high):
    model, plan = CostModel(perf), Plan.parse(text)
    low, high = sorted((low, high))
    slow = model.predict(plan, batch, LENGTH, LinkState(low, 0.001)).total_s
    fast = model.predict(plan, batch, LENGTH, LinkState(high, 0.001)).total_s
    assert fast <= slow * (1 + 1e-9)


@given(
    perf=noisy_maps(), text=TEXTS, batch=st.integers(3, 20), more=st.integers(1, 20), at=bandwidths
)
def test_more_rows_never_cost_less(perf, text, batch, more, at):
    model, plan, link = CostModel(perf), Plan.parse(text), LinkState(at, 0.001)
    few = model.predict(plan, batch, LENGTH, link).total_s
    many = model.predict(plan, batch + more, LENGTH, link).total_s
    assert many >= few * (1 - 1e-9)
