"""Answers of node processes beside those of this process; real nodes are in the command's tests."""

import numpy as np
import pytest
import torch

from prism.fidelity.copies import Copies, answer
from prism.fidelity.distributed import compare_distributed
from prism.fidelity.samples import open_samples
from prism.plan import Plan

SEGMENTS = Plan.parse("seq:2:L2")
CLUSTERS = Plan.parse("seq:2:C2")


@pytest.fixture
def vit(model):
    return model("ViTForImageClassification")


@pytest.fixture
def samples(vit, tmp_path):
    pixels = np.random.default_rng(3).normal(size=(6, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "pixels.npz", pixel_values=pixels)
    return open_samples(str(tmp_path / "pixels.npz"), vit)


def compared(vit, samples, change, plan=SEGMENTS, count=4):
    """Compare with a run whose logits were changed."""

    def run(plan, inputs):
        output = answer(Copies(vit).of(plan), plan, inputs)
        return {"logits": change(output.logits.clone())}

    (difference,) = compare_distributed(Copies(vit), samples, [plan], count, run)
    return difference


def test_equal_answers_agree(vit, samples):
    difference = compared(vit, samples, lambda logits: logits)
    assert difference.agrees and difference.largest == 0
    assert (difference.plan, difference.samples, difference.equal) == ("seq:2:L2", 4, 4)
    assert compared(vit, samples, lambda logits: logits, count=99).samples == 6


def test_the_largest_difference_is_told_relative_to_the_largest_value(vit, samples):
    difference = compared(vit, samples, lambda logits: logits * 1.01)
    assert difference.largest == pytest.approx(0.01, rel=1e-3)
    assert not difference.agrees and difference.equal == 4
    assert compared(vit, samples, lambda logits: logits * 1.0001).agrees


def test_clusters_that_rounding_moves_may_change_values_but_no_answer(vit, samples):
    assert compared(vit, samples, lambda logits: logits * 1.01, CLUSTERS).agrees
    turned = compared(vit, samples, lambda logits: -logits, CLUSTERS)
    assert not turned.agrees and turned.equal == 0


def test_float16_on_the_wire_rounds_more(vit, samples):
    half = Plan.parse("seq:2:L2:f16")
    assert compared(vit, samples, lambda logits: logits * 1.004, half).agrees
    assert not compared(vit, samples, lambda logits: logits * 1.004).agrees


def test_what_is_no_number_does_not_agree(vit, samples):
    def run(plan, inputs):
        logits = answer(vit, plan, inputs).logits
        return {"logits": torch.where(logits == logits.min(), torch.nan, logits)}

    with pytest.raises(ValueError, match="gives NaN"):
        compare_distributed(Copies(vit), samples, [SEGMENTS], 2, run)


@pytest.mark.parametrize("text", ["local:int8", "seq:2:L2:int8"])
def test_nodes_may_round_to_eight_bits_as_much_the_other_way(vit, samples, text):
    plan = Plan.parse(text)
    found = compared(vit, samples, lambda logits: logits, plan)
    assert found.largest == 0 and 1e-3 < found.tolerance < 0.5
    for factor, agrees in ((0.9, True), (1.1, False)):
        change = 1 + factor * found.tolerance
        assert compared(vit, samples, lambda logits, by=change: logits * by, plan).agrees is agrees
