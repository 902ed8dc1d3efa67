"""The figure of what plans lose over what they exchange."""

import pytest
from PIL import Image

from prism.bench.accuracy_plot import draw_drops, drop_points
from prism.errors import ConfigError
from prism.perfmap import Accuracy
from prism.plan import ModelShape

SHAPE = ModelShape("vit", 12, 768, 768, causal=False, rotary=False, max_length=197)
ENTRIES = [
    Accuracy("local", 0.9, 0.0),
    Accuracy("seq:2:full", 0.9, 0.0, drop_low=0.0, drop_high=0.0),
    Accuracy("seq:2:L10:f16", 0.8, 0.1, drop_low=0.05, drop_high=0.15),
    Accuracy("seq:2:C10:f16", 0.88, 0.02, drop_low=-0.01, drop_high=0.04),
    Accuracy("seq:4:C20:lag1", 0.89, 0.01),
]


def test_points_are_the_plans_that_exchange_something_with_their_intervals():
    points = drop_points(ENTRIES, SHAPE, 197)
    assert [str(point.plan) for point in points] == [entry.plan for entry in ENTRIES[1:]]
    assert (points[1].low, points[1].drop, points[1].high) == (0.05, 0.1, 0.15)
    assert (points[3].low, points[3].high) == (0.01, 0.01)  # nobody gave an interval


def test_a_figure_is_drawn_or_refused_with_a_reason(tmp_path):
    pytest.importorskip("matplotlib")
    points = drop_points(ENTRIES, SHAPE, 197)
    draw_drops(tmp_path / "drop.png", points, "accuracy", "a model on some data")
    with Image.open(tmp_path / "drop.png") as image:
        assert image.size[0] > 1000 and len(image.convert("RGB").getcolors(2**20)) > 20
    draw_drops(tmp_path / "one.svg", points[:1], "embedding", "one plan")
    assert (tmp_path / "one.svg").read_text().count("<svg") == 1
    with pytest.raises(ConfigError, match="its name must end in"):
        draw_drops(tmp_path / "drop.txt", points, "accuracy", "")
