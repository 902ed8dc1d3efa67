"""Images on a slow link between two real nodes: fewer bytes where there is something to save."""

import pytest
import torch
from tests.machines import close, until
from tests.processors import ViTProcessor
from transformers import ViTConfig, ViTForImageClassification

import prism
from prism.api.profiling import ProfiledModel
from prism.perfmap import CodingTimes, MapLink, Measurement, PerformanceMap, Stat

LINK = "5mbit,3ms"
EDGE = 96
# The helper has two rows of five, and begins with the first while the second travels.
PLANS = ["local@node1", "batch:2", "seq:2:full", "seq:2:L4:lag1:f16"]


@pytest.fixture(scope="module")
def cluster():
    with prism.local_cluster(nodes=2, threads=1, link=LINK) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def model(cluster, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=EDGE,
        patch_size=16,
    )
    ViTForImageClassification(config).save_pretrained(path)
    ViTProcessor(size={"height": EDGE, "width": EDGE}).save_pretrained(path)
    return cluster.load(path)


def map_of(model, *, coded, bandwidth_bps=5e6):
    """A map of the model that knows what coding takes, or does not."""
    identity, length = model.identity(), model.info.shape.max_length
    times = tuple(CodingTimes(node.name, 3e-8, 2e-8) for node in identity.nodes)
    return PerformanceMap(
        identity.model_hash,
        model.info.shape,
        identity.nodes,
        MapLink(bandwidth_bps, 0.003, 0.004),
        (Measurement("local", 1, length, 3, Stat(0.01), Stat(0.01)),),
        coding=times if coded else (),
    )


def smooth(batch):
    rows = torch.sin(torch.arange(EDGE) / 11.0)
    colours = torch.tensor([40.0, 60.0, 50.0])[:, None, None]
    speckle = torch.randn(batch, 3, EDGE, EDGE, generator=torch.Generator().manual_seed(0))
    return (128 + colours * (rows[:, None] + rows) + speckle).to(torch.uint8)


def noise(batch):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, EDGE, EDGE), dtype=torch.uint8, generator=generator)


def run(model, plan, images):
    """Return the answer, and what the helper said of it."""
    response = model.submit(plan=plan, pixel_values=images).result()
    record = response.record
    assert record.outcome == "ok"
    return response.output.logits, record.per_node.get("node1", record)


@pytest.mark.parametrize("plan", PLANS)
def test_an_image_crosses_a_slow_link_in_fewer_bytes_and_the_answer_stays(model, plan):
    found = {}
    for coded in (False, True):
        model.use_map(map_of(model, coded=coded))
        for make in (smooth, noise):
            logits, helper = run(model, plan, make(5))
            found[make, coded] = logits, helper.input_bytes
            assert helper.arrival_s > 0
        model.close()
    (raw, raw_bytes), (coded, coded_bytes) = found[smooth, False], found[smooth, True]
    assert coded_bytes < 0.75 * raw_bytes
    assert close(coded, raw)
    assert found[noise, True][1] == found[noise, False][1] >= raw_bytes
    assert close(found[noise, True][0], found[noise, False][0])


def test_the_way_home_is_no_link(model):
    model.use_map(map_of(model, coded=True))
    response = model.submit(plan="batch:2", pixel_values=smooth(5)).result()
    assert response.record.input_bytes == 3 * 3 * EDGE * EDGE
    model.close()


def test_links_are_estimated_from_what_really_crossed_them(model):
    """Raw bytes in the time of the compressed ones would make the link seem twice as fast."""
    model.use_map(map_of(model, coded=True, bandwidth_bps=20e6))
    model.close()  # nobody probes from here on

    def known():
        _, helper = run(model, "batch:2", smooth(9))
        assert helper.input_bytes < 0.75 * 4 * 3 * EDGE * EDGE
        return 5e6 / 1.3 < model.link.bandwidth_bps < 5e6 * 1.3

    assert until(known, timeout_s=60.0), model.link
    assert model.link.source == "passive"


def test_a_profile_asks_every_node_what_coding_takes(cluster, model):
    coding = ProfiledModel(cluster, model, ("float32",)).coding
    assert [each.node for each in coding] == ["node0", "node1"]
    for each in coding:
        assert each.compress_per_byte_s > 0 and each.decompress_per_byte_s > 0
