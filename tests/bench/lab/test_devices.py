"""prism's nodes over a real network: a request is answered, also while a link is cut."""

import pytest
from bench.lab.devices import cluster_on
from bench.lab.lab import Lab
from bench.lab.options import one_core_each
from bench.lab.shape import Link
from tests.machines import alone, close, pixels, tiny_vit, until

LINK = Link(rate_bps=200e6, delay_s=1e-3)
TIMEOUT_S = 60.0


@pytest.fixture
def saved(tmp_path):
    model = tiny_vit()
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


@pytest.mark.timeout(300)  # three processes import torch
def test_a_request_is_answered_while_a_link_is_cut_and_the_node_comes_back(
    rights, nothing_left, saved, tmp_path
):
    expected, path = saved
    x = pixels(2)
    answer = alone(expected, pixel_values=x).logits
    with Lab(3, LINK, cores=one_core_each(3)) as lab, cluster_on(lab, tmp_path) as cluster:
        assert cluster.nodes == ("board1", "board2", "board3")
        model = cluster.load(path)
        before = lab.carried.bytes
        assert close(model(plan="seq:3:full", pixel_values=x).logits, answer)
        assert model.last_record.outcome == "ok"
        # Every node sends its rows to both others, in float32.
        assert lab.carried.bytes - before > model.last_record.bytes_sent > 0

        lab.cut("board2")
        assert close(model(plan="seq:3:full", pixel_values=x).logits, answer)
        assert until(lambda: "board2" not in cluster.nodes, TIMEOUT_S)
        assert close(model(plan="seq:2:full", pixel_values=x).logits, answer)
        assert set(model.last_record.per_node) == {"board3"}

        lab.restore("board2")
        assert until(lambda: "board2" in model.nodes, TIMEOUT_S)
        assert close(model(plan="seq:board1+board2:full", pixel_values=x).logits, answer)
        assert model.last_record.outcome == "ok"
    assert nothing_left(lab.name)
