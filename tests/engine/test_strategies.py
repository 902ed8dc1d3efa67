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


def test_nodes_of_local_and_sequence_are_given_the_whole_request():
    inputs = {"input_ids": IDS}
    assert strategy_of("local@b").place(Plan.parse("local@b"), ["b"], inputs, 3) == {"b": inputs}
    parts = strategy_of("seq:2:full").place(Plan.parse("seq:2:full"), ["b", "a"], inputs, 3)
    assert list(parts) == ["b", "a"]
    assert all(part is inputs for part in parts.values())


@given(st.integers(1, 9), st.lists(st.integers(0, 5), min_size=2, max_size=4).filter(any))
def test_nodes_of_batch_are_given_their_rows_in_order(batch, shares):
    plan = Plan("batch", count=len(shares), shares=tuple(map(float, shares)))
    names = [f"n{i}" for i in range(len(shares))]
    x = torch.arange(batch)
    parts = STRATEGIES["batch"].place(plan, names, {"x": x}, batch)
    assert list(parts) == [name for name in names if name in parts]
    rows = {name: len(part["x"]) for name, part in parts.items()}
    assert min(rows.values()) > 0
    for name, share in zip(names, shares, strict=True):
        assert abs(rows.get(name, 0) - batch * share / sum(shares)) < 1
    assert torch.equal(STRATEGIES["batch"].join([part["x"] for part in parts.values()]), x)


def test_the_output_of_a_sequence_is_that_of_its_first_node():
    assert STRATEGIES["sequence"].join(["whole", None, None]) == "whole"
    assert STRATEGIES["local"].join(["whole"]) == "whole"
