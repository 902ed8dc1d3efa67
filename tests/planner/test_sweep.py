"""Where the choice changes."""

import json
from itertools import pairwise

import pytest
from tests.planner.clusters import LENGTH, make_map

from prism.errors import InputError
from prism.perfmap import PerformanceMap
from prism.plan import Plan
from prism.planner import CostModel, crossover_bps, decide, sweep_bandwidth, sweep_batch
from prism.record import LinkState

LOCAL, L10 = Plan(), Plan.parse("seq:2:L10")


@pytest.fixture(scope="module")
def paper():
    return CostModel(PerformanceMap.paper())


def test_the_papers_crossover_at_batch_8_lies_where_a_linear_link_puts_it(paper):
    """180-225 Mbit/s by the table; its plot says 340, to which nothing is fitted."""
    found = crossover_bps(paper, L10, LOCAL, 8, 197, paper.map.link.state())
    assert 180e6 <= found <= 225e6
    for factor, cheaper in ((0.99, LOCAL), (1.01, L10)):
        link = LinkState(found * factor, 0.0)
        assert decide(paper, 8, 197, link, allow=[L10]).choice == cheaper


def test_a_bandwidth_sweep_finds_the_same_crossover(paper):
    sweep = sweep_bandwidth(paper, 8, 197, paper.map.link.state(), allow=[L10])
    (change,) = sweep.crossovers
    assert (change.before, change.after) == ("local", "seq:2:L10")
    alone = crossover_bps(paper, L10, LOCAL, 8, 197, paper.map.link.state())
    assert change.at == pytest.approx(alone, rel=1e-6)
    assert {point.choice for point in sweep.points if point.at < change.at} == {"local"}
    assert all(point.predicted_s <= point.local_s for point in sweep.points)


def test_every_change_of_a_sweep_is_true_on_both_sides():
    model = CostModel(make_map())
    sweep = sweep_bandwidth(model, 8, LENGTH, LinkState(1e6, 0.001))
    assert len(sweep.crossovers) >= 2
    for change in sweep.crossovers:
        for factor, expected in ((1 - 1e-6, change.before), (1 + 1e-6, change.after)):
            link = LinkState(change.at * factor, 0.001)
            assert str(decide(model, 8, LENGTH, link).choice) == expected
    for before, after in pairwise(sweep.crossovers):
        assert before.after == after.before and before.at <= after.at


def test_a_batch_sweep_names_the_first_batch_that_changes(paper):
    link = paper.map.link.state()
    (change,) = sweep_batch(paper, range(1, 33), 197, link, allow=[L10]).crossovers
    assert (change.at, change.before, change.after) == (5, "local", "seq:2:L10")
    split = sweep_batch(paper, [4, 1, 2], 197, link)
    assert [point.choice for point in split.points] == ["local", "batch:2", "batch:2"]


def test_no_crossover_is_none(paper):
    link = paper.map.link.state()
    assert crossover_bps(paper, Plan.parse("seq:2:full"), LOCAL, 1, 197, link) is None
    assert crossover_bps(paper, LOCAL, Plan.parse("seq:2:full"), 1, 197, link) is None


def test_a_sweep_is_plain_json(paper):
    document = sweep_batch(paper, [1, 8], 197, paper.map.link.state()).to_dict()
    assert json.loads(json.dumps(document))["axis"] == "batch"


@pytest.mark.parametrize(("low", "high"), [(0, 1e6), (-1e6, 1e6), (1e9, 1e6), (1e6, float("inf"))])
def test_an_empty_range_is_refused(paper, low, high):
    with pytest.raises(InputError, match="sweep"):
        sweep_bandwidth(paper, 8, 197, paper.map.link.state(), low_bps=low, high_bps=high)
