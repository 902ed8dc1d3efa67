"""What each node is sent: images in fewer bytes to the helpers for which that pays."""

import pytest
import torch

from prism.control import codec
from prism.coordinator.parcels import parcels_of
from prism.demo.digits import model_path
from prism.engine.strategies import STRATEGIES
from prism.models.load import describe
from prism.plan import Plan
from prism.planner import ImageCoding
from prism.record import LinkState

NODES = ("home", "near", "far")
SLOW, FAST = (ImageCoding(LinkState(bps, 0.003), 9e-9, 5e-9) for bps in (1e6, 1e10))


@pytest.fixture(scope="module")
def info():
    return describe(str(model_path()))


def sent(info, text, images, codings):
    plan, length = Plan.parse(text), 1 + (images.shape[-1] // 4) ** 2
    strategy = STRATEGIES[plan.strategy]
    placement = strategy.place(info, plan, plan.place(NODES), {"pixel_values": images}, length)
    parcels = parcels_of(info, strategy, placement, NODES[0], codings)
    for name, parcel in parcels.items():
        halves = [parcel.first] if parcel.rest is None else [parcel.first, parcel.rest]
        arrived = [
            codec.unpack(each.description, [bytes(frame) for frame in each.frames])["pixel_values"]
            for each in halves
        ]
        assert torch.equal(torch.cat(arrived), placement.inputs[name]["pixel_values"])
        assert parcel.rest_rows == (len(arrived[1]) if arrived[1:] else 0)
    raw = {name: part["pixel_values"].numel() for name, part in placement.inputs.items()}
    return {name: parcel.nbytes / raw[name] for name, parcel in parcels.items()}


def smooth(batch, edge=64):
    rows = 100 + 90 * torch.sin(torch.arange(edge) / 9.0)
    return (rows[:, None] / 2 + rows / 2).to(torch.uint8).repeat(batch, 1, 1, 1)


# The last has rows of which the first is sent ahead.
CASES = [("seq:3:full", 64), ("batch:3", 64), ("batch:3:shares=2/3/3", 128)]


@pytest.mark.parametrize(("text", "edge"), CASES)
def test_each_helper_is_sent_what_its_link_asks_for(info, text, edge):
    images = smooth(8, edge)
    ratios = sent(info, text, images, {"near": FAST, "far": SLOW, "home": SLOW})
    assert list(ratios) == ["near", "far", "home"]  # the one at home is last
    assert (ratios["near"], ratios["home"]) == (1.0, 1.0) and ratios["far"] < 0.3


@pytest.mark.parametrize(("text", "edge"), CASES)
def test_without_a_decision_and_for_noise_all_is_sent_as_it_is(info, text, edge):
    noise = torch.randint(0, 256, (8, 1, edge, edge), dtype=torch.uint8)
    for images, codings in ((smooth(8, edge), {}), (noise, dict.fromkeys(NODES, SLOW))):
        assert set(sent(info, text, images, codings).values()) == {1.0}
