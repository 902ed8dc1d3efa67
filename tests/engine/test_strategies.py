"""One object per strategy: what it refuses, places and joins."""

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.families import BY_NAME

from prism.engine.strategies import STRATEGIES
from prism.errors import PlanError, RequestError
from prism.models.load import adopt
from prism.plan import Plan, Strategy

IDS = torch.tensor([[3, 4, 5], [6, 7, 8], [9, 3, 4]])


def strategy_of(plan):
    return STRATEGIES[Plan.parse(plan).strategy]


@pytest.fixture(scope="module")
def llama():
    return adopt(BY_NAME["LlamaForCausalLM"].model()).info


def test_every_strategy_of_a_plan_has_its_object():
    assert set(STRATEGIES) == set(get_args(Strategy))


def test_plans_without_partitions_take_what_the_model_takes(llama):
    asked = {"input_ids": IDS, "use_cache": True, "output_attentions": True}
    for plan in ("local", "local@here", "batch:4"):
        strategy_of(plan).check(llama, Plan.parse(plan), asked, 3)
    with pytest.raises(RequestError, match="output_attentions is only available"):
        strategy_of("seq:2:full").check(llama, Plan.parse("seq:2:full"), asked, 3)
    with pytest.raises(PlanError, match="leave lag1 out"):
        strategy_of("seq:2:L2:lag1").check(llama, Plan.parse("seq:2:L2:lag1"), {}, 3)


def placed(info, plan, nodes, inputs, length):
    return strategy_of(plan).place(info, Plan.parse(plan), nodes, inputs, length)


def test_nodes_of_local_and_of_texts_in_sequence_are_given_the_whole_request(llama):
    inputs = {"input_ids": IDS}
    assert placed(llama, "local@b", ["b"], inputs, 3).inputs == {"b": inputs}
    placement = placed(llama, "seq:2:full", ["b", "a"], inputs, 3)
    assert list(placement.inputs) == ["b", "a"]
    assert all(part is inputs for part in placement.inputs.values())
    assert placement.whole_shape is None


def test_helpers_of_an_image_are_given_the_patches_of_their_positions():
    case = BY_NAME["ViTModel"]
    info, inputs = adopt(case.model()).info, case.inputs()
    pixels = inputs["pixel_values"]
    placement = placed(info, "seq:3:L2:shares=3/1/2", ["a", "b", "c"], inputs, case.tokens)
    assert placement.whole_shape == tuple(pixels.shape)
    assert placement.inputs["a"] is inputs
    # 17 tokens in 8, 3 and 6, the first of them the class token: 16 patches of 4 x 4 in 4 columns.
    patches = {name: placement.inputs[name]["pixel_values"] for name in ("b", "c")}
    assert [part.shape[1] for part in patches.values()] == [3, 6]
    assert torch.equal(patches["b"][:, 0], pixels[:, :, 4:8, 12:16])
    assert torch.equal(patches["c"][:, 5], pixels[:, :, 12:16, 12:16])
    # A whole image of bytes is less than all rows of all others.
    inputs = {"pixel_values": torch.zeros(pixels.shape, dtype=torch.uint8)}
    assert placed(info, "seq:3:full", ["a", "b", "c"], inputs, case.tokens).whole_shape is None


@given(st.integers(1, 9), st.lists(st.integers(0, 5), min_size=2, max_size=4).filter(any))
def test_nodes_of_batch_are_given_their_rows_in_order(llama, batch, shares):
    plan = Plan("batch", count=len(shares), shares=tuple(map(float, shares)))
    names = [f"n{i}" for i in range(len(shares))]
    x = torch.arange(batch)
    placement = STRATEGIES["batch"].place(llama, plan, names, {"input_ids": x}, 1)
    parts = {name: {"x": part["input_ids"]} for name, part in placement.inputs.items()}
    assert list(parts) == [name for name in names if name in parts]
    rows = {name: len(part["x"]) for name, part in parts.items()}
    assert min(rows.values()) > 0
    for name, share in zip(names, shares, strict=True):
        assert abs(rows.get(name, 0) - batch * share / sum(shares)) < 1
    assert torch.equal(STRATEGIES["batch"].join([part["x"] for part in parts.values()]), x)


def test_the_output_of_a_sequence_is_that_of_its_first_node():
    assert STRATEGIES["sequence"].join(["whole", None, None]) == "whole"
    assert STRATEGIES["local"].join(["whole"]) == "whole"
