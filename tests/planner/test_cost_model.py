"""Plans derived from measured ones: what nodes cost each other is learned from one split."""

from dataclasses import replace

import pytest
from tests.planner.clusters import LENGTH, LINK, make_map

from prism.perfmap import Measurement, Stat
from prism.plan import Plan
from prism.planner import CostModel

STATE = LINK.state()


def with_measured_split(perf, slower):
    """The map, with `batch:2` measured `slower` times as slow as derived from its nodes alone."""
    plan = Plan.parse("batch:2")
    derived = CostModel(perf).predict(plan, 8, LENGTH, STATE)
    took_s = derived.total_s * slower
    entry = Measurement("batch:2", 8, LENGTH, 5, Stat(took_s), Stat(took_s))
    return replace(perf, measurements=(*perf.measurements, entry))


def test_an_unequal_split_is_as_much_slower_as_the_equal_one_was():
    perf = make_map(shapes=())
    plan = Plan.parse("batch:2:shares=5/3")
    alone = CostModel(perf).predict(plan, 8, LENGTH, STATE)
    together = CostModel(with_measured_split(perf, 1.3)).predict(plan, 8, LENGTH, STATE)
    assert together.compute_s == pytest.approx(1.3 * alone.compute_s)
    assert together.input_s == alone.input_s


def test_a_lucky_measurement_makes_no_split_faster_than_its_nodes():
    perf = make_map(shapes=())
    plan = Plan.parse("batch:2:shares=5/3")
    alone = CostModel(perf).predict(plan, 8, LENGTH, STATE)
    lucky = CostModel(with_measured_split(perf, 0.8)).predict(plan, 8, LENGTH, STATE)
    assert lucky.total_s == alone.total_s


def test_one_node_is_not_slowed_by_others_that_do_nothing():
    perf = with_measured_split(make_map(shapes=()), 1.3)
    local = CostModel(perf).predict(Plan(), 8, LENGTH, STATE)
    offloaded = CostModel(perf).predict(Plan.parse("batch:2:shares=0/1"), 8, LENGTH, STATE)
    assert offloaded.compute_s == pytest.approx(local.compute_s)
