"""Plans with a precision on real nodes: made when asked for, bounded, dropped, refused."""

import os
import signal

import pytest
import torch
from tests.families import assert_equal_outputs
from tests.machines import pixels as pixels_of

import prism
from prism.errors import ModelError, UnsupportedPrecision
from prism.models.load import adopt
from prism.models.precision import at_precision
from prism.plan import Plan

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def pixels():
    return pixels_of(3, seed=3)


@pytest.fixture(scope="module")
def int8(vit):
    return at_precision(adopt(vit), "int8").model


@pytest.fixture(scope="module")
def loaded(cluster, vit):
    model = cluster.load(vit)
    yield model
    model.unload()


@torch.inference_mode()
def test_a_precision_is_made_when_a_plan_first_has_it(loaded, int8, pixels):
    assert set(loaded.memory["node0"]) == {"float32"}
    output = loaded(plan="local:int8", pixel_values=pixels)
    assert torch.equal(output.logits, int8(pixel_values=pixels).logits)
    assert str(loaded.last_record.plan) == "local@node0:int8"
    assert loaded.last_record.outcome == "ok"
    memory = loaded.memory["node0"]
    assert 0 < memory["int8"] < memory["float32"]


@torch.inference_mode()
def test_rows_are_divided_at_a_precision(loaded, int8, pixels):
    output = loaded(plan="batch:3:int8", pixel_values=pixels)
    # Each node rounds its own row with a scale of its own.
    rows = [int8(pixel_values=row[None]).logits for row in pixels]
    torch.testing.assert_close(output.logits, torch.cat(rows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("plan", ["seq:3:full:int8", "seq:3:C2:int8", "seq:3:L2:lag1:f16:int8"])
@torch.inference_mode()
def test_positions_are_divided_at_a_precision(loaded, int8, pixels, plan):
    output = loaded(plan=plan, pixel_values=pixels[:1])
    with prism.virtual(int8, Plan.parse(plan)):
        expected = int8(pixel_values=pixels[:1])
    # In one process all partitions are rounded together, on three nodes each by itself.
    error = (output.logits - expected.logits).norm() / expected.logits.norm()
    assert error < 0.1
    assert {str(each.plan) for each in loaded.last_record.per_node.values()} == {plan}


def test_float32_stays_bit_equal_beside_other_precisions(loaded, vit, pixels):
    with torch.inference_mode():
        expected = vit(pixel_values=pixels)
    loaded(plan="local:int8", pixel_values=pixels)
    assert torch.equal(loaded(plan="local", pixel_values=pixels).logits, expected.logits)


def test_only_the_precisions_asked_for_are_kept(cluster, vit, pixels):
    model = cluster.load(vit, precisions=["int8"])
    try:
        assert {tuple(held) for held in model.memory.values()} == {("int8",)}
        assert model(plan="local:int8", pixel_values=pixels).logits.dtype == torch.float32
        with pytest.raises(
            UnsupportedPrecision, match=r"in int8 only; add float32 to `precisions`"
        ):
            model(plan="local", pixel_values=pixels)
        assert model(plan="batch:2:int8", pixel_values=pixels).logits.shape[0] == 3
    finally:
        model.unload()


@pytest.mark.parametrize("precisions", [[], ["int4"]])
def test_unknown_precisions_are_refused(cluster, vit, precisions):
    with pytest.raises(ModelError, match="precisions must be some of float32, half, int8"):
        cluster.load(vit, precisions=precisions)


def test_a_precision_that_cannot_be_had_is_said_once_and_changes_nothing(cluster, vit, pixels):
    model = cluster.load(vit, dtype="bfloat16")
    try:
        for _ in range(2):
            with pytest.raises(UnsupportedPrecision, match=r"node0: int8 is made of float32"):
                model(plan="local:int8", pixel_values=pixels)
        assert model(plan="local", pixel_values=pixels).logits.shape == (3, 5)
    finally:
        model.unload()


def test_a_node_that_dies_costs_no_request_at_a_precision(vit, pixels):
    with prism.local_cluster(nodes=2, threads=1) as cluster:
        model = cluster.load(vit, precisions=["float32", "int8"])
        expected = model(plan="local:int8", pixel_values=pixels)
        model(plan="seq:2:full:int8", pixel_values=pixels)
        os.kill(cluster.pid("node1"), signal.SIGKILL)
        output = model(plan="seq:2:full:int8", pixel_values=pixels)
        assert model.last_record.outcome == "recovered"
        with torch.inference_mode():
            assert_equal_outputs(output, vit(pixel_values=pixels))
        assert torch.equal(model(plan="local:int8", pixel_values=pixels).logits, expected.logits)
