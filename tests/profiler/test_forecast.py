"""Forecasts of passes, on a cluster whose law is known."""

import pytest
from tests.profiler.targets import FIXED_S, LLAMA, ROW_S, LawfulTarget

from prism.plan import Plan
from prism.profiler.forecast import Forecast
from prism.profiler.points import Point

LOCAL = Plan()
SHAPES = ("seq:2:full", "seq:2:C10:f16", "seq:2:C10:lag1:f16", "batch:2", "local@node1")


def forecast_of(target, *points):
    """Return a forecast that has seen one pass of each point."""
    forecast = Forecast(target)
    forecast.link = target.link
    for plan, batch, length in points:
        forecast.note(Point(plan, batch, length), target.run(plan, batch, length).total_s)
    return forecast


def true_s(target, point):
    return target.run(*point).total_s


def test_before_the_first_pass_nothing_is_known():
    assert Forecast(LawfulTarget()).pass_s(Point(LOCAL, 1, 197)) == 0.0


def test_a_pass_that_was_run_takes_as_long_again_once_all_is_warm():
    forecast, point = Forecast(LawfulTarget()), Point(LOCAL, 1, 197)
    for seconds in (9.0, 0.5, 0.52):
        forecast.note(point, seconds)
    assert forecast.pass_s(point) == 0.52


@pytest.mark.parametrize("speeds", [(1.0, 1.0), (1.0, 3.0), (2.0, 1.0)])
@pytest.mark.parametrize("mbps", [5, 100, 1000])
@pytest.mark.parametrize("text", SHAPES)
def test_plans_never_run_are_estimated_from_the_nodes_alone_and_the_link(speeds, mbps, text):
    target = LawfulTarget(speeds, bandwidth_bps=mbps * 1e6)
    alone = [(plan, batch, 197) for plan in (LOCAL, Plan.parse("local@node1")) for batch in (1, 4)]
    point = Point(Plan.parse(text), 4, 197)
    estimated_s = forecast_of(target, *alone).pass_s(point)
    # A node's input may be counted twice, and what hides behind computation is not deducted.
    assert 0.9 * true_s(target, point) <= estimated_s <= 2.1 * true_s(target, point)


@pytest.mark.parametrize("speeds", [(1.0, 1.0), (1.0, 3.0)])
def test_plans_at_a_precision_are_estimated_from_nodes_at_it(speeds):
    target = LawfulTarget(speeds, gains={"int8": 4.0}, bandwidth_bps=1e9)
    plans = ("local", "local@node1", "local:int8", "local@node1:int8")
    alone = [(Plan.parse(text), batch, 197) for text in plans for batch in (1, 4)]
    point = Point(Plan.parse("seq:2:C10:f16:int8"), 4, 197)
    # One node of each kind is run alone.
    known = alone if speeds[1] > 1 else alone[:6]
    estimated_s = forecast_of(target, *known).pass_s(point)
    assert 0.9 * true_s(target, point) <= estimated_s <= 2.1 * true_s(target, point)
    # In float32 only, it is taken for as slow.
    assert forecast_of(target, *alone[:4]).pass_s(point) > 1.5 * true_s(target, point)


@pytest.mark.parametrize("mbps", [5, 100])
@pytest.mark.parametrize("text", SHAPES)
def test_from_its_first_pass_on_a_plan_is_forecast_at_other_sizes(mbps, text):
    target = LawfulTarget(bandwidth_bps=mbps * 1e6)
    plan = Plan.parse(text)
    forecast = forecast_of(target, (LOCAL, 1, 197), (LOCAL, 4, 197), (plan, 2, 197))
    point = Point(plan, 16, 197)
    assert forecast.pass_s(point) == pytest.approx(true_s(target, point), rel=0.1)


def test_the_nearest_size_is_what_a_forecast_leads_on_from():
    target = LawfulTarget(model=LLAMA, lengths=(32, 512))
    plan = Plan.parse("seq:2:full")
    forecast = forecast_of(target, (LOCAL, 1, 32), (LOCAL, 1, 512), (plan, 1, 32))
    forecast.note(Point(plan, 1, 512), 7 * true_s(target, Point(plan, 1, 512)))
    point = Point(plan, 2, 512)
    assert forecast.pass_s(point) == pytest.approx(7 * true_s(target, point), rel=0.2)


def test_one_pass_of_local_is_continued_in_proportion():
    target = LawfulTarget((1.0,))
    forecast = Forecast(target)
    forecast.note(Point(LOCAL, 1, 197), FIXED_S + ROW_S)
    assert forecast.pass_s(Point(LOCAL, 16, 197)) == pytest.approx(16 * (FIXED_S + ROW_S))
