"""The live link: replayed runs lead the estimate to the truth, outliers do not lead it astray."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, LINK, Truth, make_map

from prism.errors import InputError
from prism.perfmap import MapLink, PerformanceMap, Stat
from prism.plan import Plan
from prism.planner import CostModel, LinkEstimate, LinkSample, decide
from prism.record import LinkState, RunRecord

START = LinkEstimate(LinkState(100e6, 0.001, measured_at_s=0.0))


def sample(bandwidth_bps, bits=1e6, latency_s=0.001):
    return LinkSample(bits, bits / bandwidth_bps + latency_s)


def record_runs(path, links, noise, plan="seq:2:L10", batch=2, seed=1):
    """Write what rank 0 would log while the link goes through `links`, one run each."""
    rng, truth, parsed = random.Random(seed), Truth(hidden_s=0.0002), Plan.parse(plan)
    with path.open("w") as stream:
        for bandwidth_bps in links:
            comm_s = truth.comm_s(parsed, batch, LinkState(bandwidth_bps, 0.001))
            comm_s *= rng.uniform(1 - noise, 1 + noise)
            compute_s = truth.compute_s(parsed, batch)
            record = RunRecord(
                "node0", parsed, batch, LENGTH, compute_s + comm_s, compute_s, comm_s=comm_s
            )
            stream.write(json.dumps(record.to_dict()) + "\n")


def replay(path, model, estimate):
    for place, line in enumerate(path.read_text().splitlines()):
        heard = model.link_sample(RunRecord.from_dict(json.loads(line)))
        estimate = estimate.with_run(heard, now_s=0.3 * (place + 1))
    return estimate


@pytest.mark.parametrize("mbps", [8, 30, 100, 250])
def test_replayed_runs_lead_to_the_true_bandwidth_and_the_right_choice(tmp_path, mbps):
    truth = Truth(hidden_s=0.0002)
    model = CostModel(make_map(truth=truth))
    record_runs(tmp_path / "runs.jsonl", [mbps * 1e6] * 25, noise=0.05)
    found = replay(tmp_path / "runs.jsonl", model, START).state
    assert found.bandwidth_bps == pytest.approx(mbps * 1e6, rel=0.15)
    assert found.source == "passive"
    allow = [Plan.parse(text) for text in ("local", "seq:2:L10", "seq:3:L10:lag1")]
    choice = decide(model, 1, LENGTH, found, allow=allow).choice
    true_link = LinkState(mbps * 1e6, 0.001)
    assert choice == min(allow, key=lambda plan: truth.total_s(plan, 1, true_link))


def test_a_drop_in_the_middle_is_noticed(tmp_path):
    model = CostModel(make_map(truth=Truth(hidden_s=0.0002)))
    record_runs(tmp_path / "runs.jsonl", [100e6] * 10 + [10e6] * 10, noise=0.03)
    found = replay(tmp_path / "runs.jsonl", model, START).state
    assert found.bandwidth_bps == pytest.approx(10e6, rel=0.15)


def test_a_single_outlier_changes_nothing_and_two_in_a_row_do():
    once = START.with_run(sample(1e6), now_s=1.0)
    assert once.state == START.state
    back = once.with_run(sample(101e6), now_s=1.1)
    assert back.state.bandwidth_bps == pytest.approx(100e6, rel=0.01)
    again = back.with_run(sample(1e6), now_s=1.2)
    assert again.state == back.state
    gone = again.with_run(sample(1.1e6), now_s=1.3)
    assert gone.state.bandwidth_bps == pytest.approx(1.1e6)
    assert gone.state.measured_at_s == 1.3


def test_two_outliers_move_the_estimate_only_as_far_as_both_say():
    moved = START.with_run(sample(1e6), now_s=1.0).with_run(sample(50e6), now_s=1.1)
    assert moved.state.bandwidth_bps == pytest.approx(50e6)


def test_outliers_on_both_sides_are_no_agreement():
    estimate = START
    for place, bandwidth_bps in enumerate([1e6, 1e10, 1e6, 1e10, 1e6, 1e10]):
        estimate = estimate.with_run(sample(bandwidth_bps), now_s=0.1 * place)
    assert estimate.state == START.state


def test_after_a_long_silence_the_first_sample_is_believed():
    found = START.with_run(sample(5e6), now_s=60.0)
    assert found.state.bandwidth_bps == pytest.approx(5e6)


def test_a_hidden_transfer_can_only_raise_the_estimate():
    slow = LinkSample(1e6, 0.101, at_most=True)
    kept = START.with_run(slow, now_s=1.5)
    assert kept.state.bandwidth_bps == pytest.approx(100e6)
    assert kept.state.measured_at_s == 1.5
    raised = START.with_run(LinkSample(1e6, 0.0083 + 0.001, at_most=True), now_s=1.5)
    assert raised.state.bandwidth_bps > 100e6


def test_runs_that_were_given_up_bound_the_bandwidth_from_above():
    given_up = LinkSample(1e6, 1.001, at_least=True)  # at most 1 Mbit/s
    once = START.with_run(given_up, now_s=1.0)
    assert once.state == START.state
    twice = once.with_run(given_up, now_s=3.0)
    assert twice.state.bandwidth_bps == pytest.approx(1e6)
    assert twice.with_run(LinkSample(1e6, 0.005, at_least=True), now_s=3.1) == twice


def test_a_probe_is_due_when_nothing_was_heard_for_two_seconds():
    heard = START.with_run(sample(100e6), now_s=10.0)
    assert not heard.probe_due(11.9)
    assert heard.probe_due(12.0)
    assert not heard.probe_due(12.0, after_s=5.0)
    assert heard.age_s(13.0) == 3.0


def test_probes_move_latency_and_bandwidth():
    estimate = START
    for second in range(1, 30):
        probe = sample(40e6, latency_s=0.01)
        estimate = estimate.with_probe(probe, latency_s=0.01, now_s=2.0 * second)
    assert estimate.state.latency_s == pytest.approx(0.01, rel=0.05)
    assert estimate.state.bandwidth_bps == pytest.approx(40e6, rel=0.05)
    assert estimate.state.source == "probe"


def probe_with(latency_s):
    return sample(100e6, latency_s=latency_s), latency_s


def test_one_late_probe_moves_nothing_and_two_move_the_latency():
    once = START.with_probe(*probe_with(0.1), now_s=2.0)
    assert once.state.latency_s == pytest.approx(0.001)
    assert once.state.bandwidth_bps == pytest.approx(100e6)
    well = once.with_probe(*probe_with(0.001), now_s=4.0)
    again = well.with_probe(*probe_with(0.1), now_s=6.0)
    assert again.state.latency_s == pytest.approx(0.001)
    moved = again.with_probe(*probe_with(0.08), now_s=8.0)
    assert moved.state.latency_s == pytest.approx(0.08)
    assert moved.state.bandwidth_bps == pytest.approx(100e6)


def test_a_latency_of_nothing_is_a_latency():
    still = LinkEstimate(LinkState(100e6, 0.0))
    for second in range(1, 5):
        still = still.with_probe(*probe_with(0.0), now_s=2.0 * second)
    assert still.state.latency_s == pytest.approx(0.0, abs=1e-9)


latencies = st.lists(st.floats(0, 10), min_size=1, max_size=12)


@given(seen=latencies)
def test_the_latency_believed_stays_within_what_was_seen(seen):
    estimate = START
    for place, latency_s in enumerate(seen):
        estimate = estimate.with_probe(*probe_with(latency_s), now_s=2.0 * (place + 1))
    low, high = min(0.001, *seen), max(0.001, *seen)
    assert low - 1e-9 <= estimate.state.latency_s <= high * (1 + 1e-9) + 1e-9


@given(
    bad=st.floats(0, 1e3),
    settled=st.floats(1e-4, 0.1),
)
def test_no_single_probe_moves_the_latency_by_more_than_half(bad, settled):
    estimate = LinkEstimate(LinkState(100e6, settled, measured_at_s=0.0))
    moved = estimate.with_probe(*probe_with(bad), now_s=2.0).state.latency_s
    assert (settled + 1e-4) / 1.5 <= moved + 1e-4 <= (settled + 1e-4) * 1.5 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("bits", "seconds", "latency_s"),
    [(0, 1, 0), (-1, 1, 0), (1, 0, 0), (1, 1, -1), (1, 1, float("nan")), (1, float("nan"), 0)],
)
def test_an_impossible_probe_is_refused(bits, seconds, latency_s):
    with pytest.raises(InputError, match="impossible"):
        START.with_probe(LinkSample(bits, seconds), latency_s, now_s=1.0)


@given(
    heard=st.lists(
        st.tuples(
            st.floats(-1, 1e9),
            st.floats(-1, 10),
            st.sampled_from([(False, False), (True, False), (False, True)]),
            st.floats(0, 5),
        ),
        max_size=20,
    )
)
def test_no_sample_breaks_the_estimate(heard):
    estimate, now_s = START, 0.0
    for bits, seconds, bound, later_s in heard:
        now_s += later_s
        estimate = estimate.with_run(LinkSample(bits, seconds, *bound), now_s)
        assert estimate.state.bandwidth_bps > 0
        assert estimate.state.measured_at_s <= now_s


def test_runs_that_tell_nothing_give_no_sample():
    model = CostModel(make_map())
    for plan in ("local", "batch:2", "seq:2:L77"):
        record = RunRecord("node0", Plan.parse(plan), 4, LENGTH, 1.0)
        assert model.link_sample(record) is None
    failed = RunRecord("node0", Plan.parse("seq:2:L10"), 4, LENGTH, 1.0, outcome="recovered")
    assert model.link_sample(failed) is None


@pytest.mark.parametrize("link", [LINK, PerformanceMap.paper().link, MapLink(1e8, 0.002, 0.003)])
@pytest.mark.parametrize("mbps", [20, 90])
def test_a_sample_inverts_the_prediction(link, mbps):
    """What a run would cost on some link is read back as that link."""
    model = CostModel(replace(make_map(truth=Truth(hidden_s=0.0)), link=link))
    plan = Plan.parse("seq:2:L10")
    now = LinkState(mbps * 1e6, link.latency_s or 0.0)
    comm_s = model.predict(plan, 4, LENGTH, now).comm_s
    heard = model.link_sample(RunRecord("node0", plan, 4, LENGTH, 1.0, comm_s=comm_s))
    found = heard.bits / (heard.seconds - now.latency_s)
    assert found == pytest.approx(mbps * 1e6, rel=1e-6)


def with_helper(record, compute_s, name="node1"):
    return replace(record, per_node={name: replace(record, node=name, compute_s=compute_s)})


def test_a_throttled_helper_is_not_a_slow_link():
    """Rank 0 stands still for a helper that computes 0.3 s longer; the link is as measured."""
    model = CostModel(make_map(truth=Truth(hidden_s=0.0)))
    plan = Plan.parse("seq:2:L10")
    expected = model.predict(plan, 4, LENGTH, LINK.state())
    well = RunRecord("node0", plan, 4, LENGTH, 1.0, expected.compute_s, comm_s=expected.comm_s)
    slow = replace(well, comm_s=expected.comm_s + 0.3)
    assert model.link_sample(slow).seconds > 3 * model.link_sample(well).seconds
    heard = model.link_sample(with_helper(slow, expected.compute_s + 0.3))
    assert heard.seconds == pytest.approx(model.link_sample(well).seconds)
    assert heard.bits == model.link_sample(well).bits
    quick = model.link_sample(with_helper(well, expected.compute_s / 2))
    assert quick == model.link_sample(well)


def test_a_helper_that_was_always_slow_is_part_of_the_measured_stall():
    """Equal parts on unequal boards: what the map's stall contains is not taken off again."""
    perf = make_map(shapes=(), nodes=("board", "pi"))
    local = [replace(entry, plan="local@node1") for entry in perf.measurements]
    slow = [
        replace(entry, compute_s=Stat(2 * s), total_s=Stat(2 * s))
        for entry in local
        if (s := entry.compute_s.median)
    ]
    both = make_map(shapes=("seq:2:L10",), truth=Truth(hidden_s=0.0)).measurements
    model = CostModel(replace(perf, measurements=(*both, *slow)))
    plan = Plan.parse("seq:2:L10")
    expected = model.predict(plan, 4, LENGTH, LINK.state())
    run = RunRecord("node0", plan, 4, LENGTH, 1.0, expected.compute_s, comm_s=expected.comm_s)
    blocks = 11 / (11 + 1 / 6)  # it ends with the last means, rank 0 with the class token's row
    as_ever = with_helper(run, 2 * blocks * expected.compute_s)
    assert model.link_sample(as_ever).seconds == pytest.approx(model.link_sample(run).seconds)


@pytest.mark.parametrize("text", ["seq:2:L10", "seq:2:full", "seq:2:L10:lag1"])
@pytest.mark.parametrize("mbps", [1, 5, 20])
@pytest.mark.parametrize("truth", [Truth(hidden_s=0.0), Truth(row_s=0.4, hidden_s=1.0)])
def test_a_run_given_up_bounds_the_link_as_the_prediction_would(text, mbps, truth):
    """A run given up when it would just have been done: the bound is the link itself."""
    model = CostModel(make_map(truth=truth))
    plan, now = Plan.parse(text), LinkState(mbps * 1e6, LINK.latency_s)
    waited_s = model.predict(plan, 4, LENGTH, now).total_s
    heard = model.timeout_sample(plan, 4, LENGTH, waited_s)
    assert heard.at_least
    assert heard.bits / (heard.seconds - now.latency_s) == pytest.approx(mbps * 1e6)


def test_a_run_given_up_that_says_nothing_of_the_link_gives_no_sample():
    model = CostModel(make_map())
    assert model.timeout_sample(Plan(), 4, LENGTH, 10.0) is None
    assert model.timeout_sample(Plan.parse("seq:2:L77"), 4, LENGTH, 10.0) is None
    plan = Plan.parse("seq:2:L10")
    soon_s = 0.9 * model.predict(plan, 4, LENGTH, LINK.state()).total_s
    assert model.timeout_sample(plan, 4, LENGTH, soon_s) is None
    assert model.timeout_sample(plan, 4, LENGTH, 10.0) is not None
    assert model.timeout_sample(plan, 4, LENGTH, 10.0, slowdown=1000.0) is None
