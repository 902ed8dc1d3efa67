"""Figures: what they show, and what cannot be drawn."""

import pytest
from PIL import Image

from prism.bench.plots import Curve, check_target, draw_sweep, trace
from prism.errors import ConfigError
from prism.perfmap import PerformanceMap
from prism.planner import CostModel, decide, sweep_bandwidth, sweep_batch
from prism.record import LinkState

pytest.importorskip("matplotlib")
LENGTH = 197
LINK = LinkState(400e6, 0.0)


@pytest.fixture(scope="module")
def paper():
    return CostModel(PerformanceMap.paper())


def over_bandwidth(bps):
    return 8, LENGTH, LinkState(bps, 0.0)


def over_batches(batch):
    return int(batch), LENGTH, LINK


def candidates(model, batch=8):
    return decide(model, batch, LENGTH, LINK).candidates


def test_a_curve_holds_the_predictions_of_its_plan(paper):
    sweep = sweep_bandwidth(paper, 8, LENGTH, LINK, low_bps=5e6, high_bps=5e8)
    curves = {curve.plan: curve for curve in trace(paper, sweep, candidates(paper), over_bandwidth)}
    assert set(curves) == {"local", "batch:2", "seq:2:L10", "seq:2:full"}
    assert {s for _, s in curves["local"].points} == {sweep.points[0].local_s}
    for point in sweep.points:
        if point.choice == "batch:2":
            assert (point.at, point.predicted_s) in curves["batch:2"].points
    assert not curves["seq:2:L10"].allowed and curves["seq:2:full"].allowed


def test_a_curve_leaves_out_batches_that_are_too_small_for_its_plan(paper):
    sweep = sweep_batch(paper, range(1, 5), LENGTH, LINK)
    curves = trace(paper, sweep, candidates(paper), over_batches)
    at = {curve.plan: [place for place, _ in curve.points] for curve in curves}
    assert at["batch:2"] == [2, 3, 4] and at["local"] == [1, 2, 3, 4]


def test_a_split_that_fits_one_bandwidth_only_has_no_curve(paper):
    slow = LinkState(20e6, 0.0)
    sweep = sweep_bandwidth(paper, 8, LENGTH, slow, low_bps=5e6, high_bps=20e6)
    assert {point.choice for point in sweep.points} >= {"batch:2:shares=7/1"}
    field = decide(paper, 8, LENGTH, slow).candidates
    assert any(candidate.plan.shares for candidate in field)
    curves = trace(paper, sweep, field, over_bandwidth)
    assert {curve.plan for curve in curves} == {"local", "batch:2", "seq:2:L10", "seq:2:full"}


def test_chosen_plans_come_first_where_there_are_too_many(paper):
    sweep = sweep_batch(paper, range(1, 5), LENGTH, LINK)
    many = [*candidates(paper)[::-1]] * 5
    plans = [curve.plan for curve in trace(paper, sweep, many, over_batches)]
    assert len(plans) < len(many) and set(plans[:2]) == {"local", "batch:2"}


@pytest.mark.parametrize(
    ("sweep", "place", "words"),
    [
        (
            lambda model: sweep_bandwidth(model, 8, LENGTH, LINK, low_bps=5e6, high_bps=5e8),
            over_bandwidth,
            ["bandwidth of the link (Mbit/s)", "34.6 Mbit/s: → batch:2", "200"],
        ),
        (
            lambda model: sweep_batch(model, range(1, 9), LENGTH, LINK),
            over_batches,
            ["batch size (rows per request)", "batch 2: → batch:2"],
        ),
    ],
    ids=["bandwidth", "batch"],
)
def test_a_figure_names_axes_units_plans_and_crossovers(paper, tmp_path, sweep, place, words):
    swept = sweep(paper)
    curves = trace(paper, swept, candidates(paper), place)
    draw_sweep(tmp_path / "figure.svg", swept, curves, "what was asked")
    # In an SVG every text stands beside its outlines as a comment.
    drawn = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    latency = "predicted latency of the batch (ms)"
    plans = ["chosen", "local", "batch:2", "seq:2:L10 (not allowed)", "seq:2:full"]
    for text in [*words, latency, *plans, "what was asked"]:
        assert f"<!-- {text} -->" in drawn


def test_a_png_has_something_in_it(paper, tmp_path):
    sweep = sweep_batch(paper, [1, 2], LENGTH, LINK)
    draw_sweep(tmp_path / "figure.png", sweep, [Curve("local", ((1, 0.1), (2, 0.2)))], "")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width > 800 and len(image.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.parametrize(
    ("name", "reason"),
    [("figure.gif", "must end in"), ("figure", "must end in"), ("no/figure.png", "no folder")],
)
def test_a_target_that_cannot_be_drawn_is_refused(tmp_path, name, reason):
    with pytest.raises(ConfigError, match=reason):
        check_target(tmp_path / name)


def test_a_folder_is_no_target(tmp_path):
    (tmp_path / "figure.png").mkdir()
    with pytest.raises(ConfigError, match="folder"):
        check_target(tmp_path / "figure.png")
