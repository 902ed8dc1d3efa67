"""Profiles of nodes that compute at several precisions: few are measured, the rest is predicted."""

from dataclasses import replace

import pytest
from tests.profiler.targets import LawfulTarget

from prism.perfmap import PerformanceMap
from prism.plan import Plan
from prism.planner import CostModel
from prism.profiler import Profiler, Settings

GAINS = {"half": 1.8, "int8": 3.0}


def profile(target, path, **options):
    Profiler(target, Settings(**options), path, lambda progress: None, "1", target.clock).run()
    return PerformanceMap.load(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "map.json"


def lossy(perf):
    return {text for text in perf.by_shape if Plan.parse(text).precision != "float32"}


def test_each_kind_of_node_alone_and_the_best_sequence_plans_are_measured(path):
    perf = profile(LawfulTarget((1.0, 1.0, 3.0), kinds=(1, 1, 3), gains={"int8": 3.0}), path)
    means = {text for text in lossy(perf) if text.startswith("seq")}
    assert lossy(perf) - means == {"local:int8", "local@node2:int8"}
    assert {Plan.parse(text).size for text in means} == {2, 3}
    assert all(Plan.parse(text).means == 10 for text in means) and len(means) == 4
    assert {entry.batch for entry in perf.measurements if entry.plan in means} == {1, 16}


def test_nodes_without_other_precisions_are_profiled_as_ever(path):
    assert lossy(profile(LawfulTarget(), path)) == set()


def test_only_the_precisions_asked_for_are_measured(path):
    perf = profile(LawfulTarget(gains=GAINS), path, precisions=("float32", "half"))
    assert {Plan.parse(text).precision for text in lossy(perf)} == {"half"}
    missing = LawfulTarget(gains={"half": 1.8})
    perf = profile(missing, path.with_name("b.json"), precisions=("float32", "half", "int8"))
    assert {Plan.parse(text).precision for text in lossy(perf)} == {"half"}


@pytest.mark.parametrize("budget_s", [None, 60.0])
@pytest.mark.parametrize("speeds", [(1.0, 1.0), (1.0, 2.5)])
def test_plans_that_never_ran_are_predicted_as_they_run(path, speeds, budget_s):
    target = LawfulTarget(speeds, gains=GAINS, noise=0.02)
    perf = profile(target, path, budget_s=budget_s)
    model = CostModel(perf)
    measured = {(entry.plan, entry.batch) for entry in perf.measurements}
    for precision in GAINS:
        for shape in perf.by_shape:
            plan = Plan.parse(shape)
            if plan.precision == "float32" and plan.strategy == "sequence":
                other = replace(plan, precision=precision)
                assert (other.shape, 12) not in measured
                predicted_s = model.predict(other, 12, 197, perf.link.state()).total_s
                assert predicted_s == pytest.approx(target.run(other, 12, 197).total_s, rel=0.1)


def test_the_error_is_tested_at_other_precisions_too(path):
    perf = profile(LawfulTarget(gains={"int8": 3.0}, noise=0.02), path)
    tested = {Plan.parse(each.plan).precision for each in perf.held_out}
    assert tested == {"float32", "int8"}
    assert max(abs(each.error) for each in perf.held_out if "batch" not in each.plan) < 0.1


def test_within_a_budget_what_one_node_gains_comes_first(path):
    target = LawfulTarget((20.0, 20.0), gains={"int8": 3.0}, noise=0.02)
    perf = profile(target, path, budget_s=45.0)
    assert "local:int8" in perf.by_shape and perf.left_out
    assert CostModel(perf).precisions == ("float32", "int8")


def test_a_profile_that_is_continued_measures_the_same_precisions(path):
    target = LawfulTarget(gains={"int8": 3.0}, stop_at=30)
    with pytest.raises(KeyboardInterrupt):
        profile(target, path)
    again = LawfulTarget(gains={"int8": 3.0})
    whole = LawfulTarget(gains={"int8": 3.0})
    perf = profile(again, path)
    assert lossy(perf) == lossy(profile(whole, path.with_name("whole.json")))
    assert len(again.log) < len(whole.log)
