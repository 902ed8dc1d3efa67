"""Profiles within a budget, by the clock of a cluster that obeys a known law."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.profiler.targets import LLAMA, VIT, LawfulTarget

from prism.errors import InputError
from prism.perfmap import PerformanceMap
from prism.plan import Plan
from prism.planner import CostModel, decide
from prism.profiler import Profiler, Settings
from prism.profiler.budget import Budget

LINK_S = 0.6  # more than timing the link takes on these clusters


def profile(target, path, report=lambda progress: None, **options):
    """Profile a target; return the map and the seconds it took."""
    begun_s = target.now_s
    perf = Profiler(target, Settings(**options), path, report, "1.2.3", target.clock).run()
    return perf, target.now_s - begun_s


@pytest.fixture
def path(tmp_path):
    return tmp_path / "map.json"


def two():
    return LawfulTarget(noise=0.02)


def four():
    return LawfulTarget((1.0,) * 4, noise=0.02)


def texts():
    return LawfulTarget(model=LLAMA, lengths=(32, 128, 512), noise=0.02)


def slow():
    return LawfulTarget((20.0, 40.0), noise=0.02)


def wifi():
    return LawfulTarget(bandwidth_bps=5e6, noise=0.02)


def test_a_budget_counts_down():
    now_s = [10.0]
    budget = Budget(5.0, lambda: now_s[0])
    budget.reserved_s = 1.0
    now_s[0] += 3.0
    assert (budget.elapsed_s, budget.left_s, budget.limited) == (3.0, 1.0, True)
    assert Budget(None, lambda: 0.0).left_s == float("inf")


@pytest.mark.parametrize("cluster", [two, four, texts, slow, wifi])
@pytest.mark.parametrize("budget_s", [8.0, 20.0, 60.0, 150.0, 300.0])
def test_the_budget_is_kept_and_used(path, cluster, budget_s):
    perf, took_s = profile(cluster(), path, budget_s=budget_s)
    assert took_s <= 1.1 * budget_s
    assert perf.budget_s == budget_s
    if perf.left_out:
        assert took_s >= 0.5 * budget_s
    assert PerformanceMap.load(path) == perf


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.3, 30), st.floats(0.3, 30), st.floats(1, 600), st.floats(5, 1000), st.integers(0, 9)
)
def test_whatever_the_cluster_the_budget_is_kept_or_refused(
    tmp_path_factory, one, other, budget_s, mbps, seed
):
    target = LawfulTarget((one, other), bandwidth_bps=mbps * 1e6, noise=0.05)
    path = tmp_path_factory.mktemp("profile") / "map.json"
    try:
        perf, took_s = profile(target, path, budget_s=budget_s, seed=seed)
    except InputError:
        return  # too small for one point
    assert took_s <= 1.1 * budget_s
    assert "local" in perf.by_shape


def test_with_time_for_all_a_budget_changes_nothing(path):
    within, took_s = profile(two(), path, budget_s=300.0)
    without, _ = profile(two(), path)
    assert took_s < 150
    sizes = {entry.key for entry in without.measurements}
    assert {entry.key for entry in within.measurements} == sizes
    assert within.left_out == without.left_out == ()
    assert without.budget_s is None
    assert len(within.held_out) == len(without.held_out) == 8


@pytest.mark.parametrize("budget_s", [20.0, 60.0])
def test_a_pass_that_takes_unexpectedly_long_is_made_up_for(path, budget_s):
    """Every fiftieth pass takes twenty times as long: other programs came in between."""
    target = LawfulTarget(hiccups=dict.fromkeys(range(25, 1000, 50), 20.0))
    _, took_s = profile(target, path, budget_s=budget_s)
    assert took_s <= 1.1 * budget_s


@pytest.mark.parametrize(
    ("cluster", "budget_s", "largest"),
    [(two, 300, 16), (two, 60, 8), (two, 30, 6), (two, 15, 3), (slow, 300, 6), (texts, 100, 16)],
)
def test_slow_models_get_smaller_batches(path, cluster, budget_s, largest):
    perf, _ = profile(cluster(), path, budget_s=float(budget_s))
    assert max(entry.batch for entry in perf.measurements) == largest


def test_outputs_too_large_for_a_batch_make_it_smaller_without_a_budget_too(path):
    target = two()
    target.payload = replace(target.payload, output_bytes=80e6)
    perf, _ = profile(target, path)
    assert max(entry.batch for entry in perf.measurements) == 6


def test_named_batches_are_kept_and_slow_points_left_out(path):
    perf, took_s = profile(two(), path, budget_s=25.0, batches=(1, 4, 16))
    assert took_s <= 27.5
    assert {point.batch for point in perf.left_out} >= {16}
    assert {entry.batch for entry in perf.measurements if entry.plan == "local"} == {1, 4, 16}
    measured = {entry.key for entry in perf.measurements}
    assert not measured & {(each.plan, each.batch, each.length) for each in perf.left_out}
    full, _ = profile(two(), path, batches=(1, 4, 16))
    assert len(measured) + len(perf.left_out) == len(full.measurements)


@pytest.mark.parametrize(
    ("cluster", "budget_s", "batches"),
    [
        (two, 25.0, (1, 4, 16)),
        (two, 40.0, (1, 4, 16)),
        (wifi, 60.0, (1, 4, 16)),
        (slow, 300.0, (1, 2, 8)),
        (two, 8.0, None),
        (texts, 8.0, (1, 8)),
    ],
)
def test_points_left_out_are_predicted_near_what_the_full_profile_measures(
    path, cluster, budget_s, batches
):
    perf, _ = profile(cluster(), path, budget_s=budget_s, batches=batches)
    assert perf.left_out
    predicted = [point for point in perf.left_out if point.predicted_s is not None]
    model, target = CostModel(perf), cluster()
    assert predicted
    errors = []
    for point in predicted:
        plan = Plan.parse(point.plan)
        again = model.predict(plan, point.batch, point.length, perf.link.state())
        assert point.predicted_s == pytest.approx(again.total_s)
        true_s = target.run(plan, point.batch, point.length).total_s
        errors.append(abs(point.predicted_s / true_s - 1))
    assert max(errors) < 0.3 and sum(errors) / len(errors) < 0.15


@pytest.mark.parametrize("cluster", [two, wifi, slow])
def test_choices_from_a_short_profile_are_nearly_those_from_the_full_one(path, cluster):
    short, _ = profile(cluster(), path, budget_s=12.0 if cluster is not slow else 200.0)
    full, _ = profile(cluster(), path)
    target, exact = cluster(), CostModel(full)
    for batch in (1, 2, 4, 8, 16):
        chosen = decide(CostModel(short), batch, 197, short.link.state()).choice
        best = decide(exact, batch, 197, full.link.state()).choice
        assert target.run(chosen, batch, 197).total_s <= 1.15 * target.run(best, batch, 197).total_s


def test_up_to_four_nodes_share_the_budget(path):
    perf, took_s = profile(four(), path, budget_s=60.0)
    assert took_s <= 66
    sizes = {Plan.parse(shape).size for shape in perf.by_shape if shape.startswith("seq")}
    assert sizes == {2, 3, 4}
    held_out = [each for each in perf.held_out if not each.plan.startswith("batch")]
    assert held_out and max(abs(each.error) for each in held_out) < 0.1


def test_a_budget_too_small_for_one_point_says_what_would_do(path):
    with pytest.raises(InputError, match="too small for one point") as caught:
        profile(slow(), path, budget_s=2.0)
    assert list(path.parent.iterdir()) == []
    enough_s = float(str(caught.value).split("give it ")[1].split(" s")[0])
    perf, took_s = profile(slow(), path, budget_s=enough_s)
    assert set(perf.by_shape) >= {"local"} and perf.left_out
    assert took_s <= 1.1 * enough_s
    assert {point.predicted_s for point in perf.left_out if point.plan.startswith("seq")} == {None}


def test_large_batches_are_judged_before_one_is_run(path):
    target = LawfulTarget((10.0, 10.0))
    begun_s = target.now_s
    with pytest.raises(InputError, match="batch 64 and length 197"):
        profile(target, path, budget_s=20.0, batches=(64,))
    assert target.now_s - begun_s < 20
    assert {batch for _, batch, _ in target.log} == {1}


def test_a_first_pass_that_finds_all_cold_is_no_reason_to_refuse(path):
    target = LawfulTarget(hiccups={1: 100.0})
    perf, _ = profile(target, path, budget_s=15.0)
    assert len(perf.measurements) > 3


def test_progress_never_promises_more_than_the_budget(path):
    told = []
    profile(two(), path, told.append, budget_s=30.0)
    known = [each.left_s for each in told if each.left_s is not None]
    assert max(known) <= 30.0
    assert all(each.done <= each.total for each in told)


@pytest.mark.parametrize("stop_at", [1, 3, 9, 40, 90])
def test_a_continued_profile_has_the_budget_for_what_is_left(path, stop_at):
    with pytest.raises(KeyboardInterrupt):
        profile(LawfulTarget(noise=0.02, stop_at=stop_at), path, budget_s=30.0)
    noted = json.loads(path.with_name("map.json.partial").read_text())["records"]
    whole = {point for point, records in noted.items() if len(records) >= 2}
    target = two()
    perf, took_s = profile(target, path, budget_s=30.0)
    assert took_s <= 33
    assert max(entry.batch for entry in perf.measurements) == 6
    # One sample is looked at only where nothing is known, and nothing whole is run again.
    again = {"{} {} {}".format(*point) for point in target.log}
    assert not again & whole
    assert perf.seconds_spent == pytest.approx(took_s, abs=30.0)


def test_what_a_small_budget_measured_a_larger_one_completes(path):
    target = LawfulTarget(noise=0.02, stop_at=60)
    with pytest.raises(KeyboardInterrupt):
        profile(target, path, budget_s=12.0)
    again = two()
    perf, _ = profile(again, path, budget_s=300.0)
    assert max(entry.batch for entry in perf.measurements) == 16 and not perf.left_out
    assert len(again.log) < perf.passes


@pytest.mark.parametrize(
    ("target", "lengths", "sentence"),
    [
        (two(), (100,), "length 100 is not possible: every sample of this model has 197 positions"),
        (two(), (500,), "length 500 is too long for this model, which takes up to 197 positions"),
        (texts(), (513,), "length 513 is too long for this model, which takes up to 512"),
    ],
)
def test_lengths_that_a_model_has_not_are_refused(path, target, lengths, sentence):
    with pytest.raises(InputError, match=sentence):
        profile(target, path, lengths=lengths)


def test_named_lengths_are_measured(path):
    perf, _ = profile(texts(), path, lengths=(256, 64), budget_s=60.0)
    assert {entry.length for entry in perf.measurements} == {64, 256}
    image, _ = profile(LawfulTarget(model=VIT), path, lengths=(197,), batches=(1, 3))
    assert {entry.length for entry in image.measurements} == {197}
