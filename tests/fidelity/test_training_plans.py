"""Which plans are trained: the defaults, and what the sandwich draws."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.families import BY_NAME

from prism.errors import PlanError
from prism.fidelity.training_plans import (
    EXACT,
    Sandwich,
    check_defaults,
    check_plans,
    default_plans,
    trained_as,
)
from prism.models.families import family_of
from prism.models.load import adopt
from prism.plan import Plan

VIT = family_of(BY_NAME["ViTModel"].model().config)
LLAMA = family_of(BY_NAME["LlamaForCausalLM"].model().config)


def plans_of(*texts):
    return tuple(Plan.parse(text) for text in texts)


def test_default_plans_keep_a_tenth_and_a_fifth():
    found = set(map(str, default_plans(VIT, 197)))
    assert len(found) == 3 * 2 * 2 * 2
    # N / (CR * P) means for each partition, as the paper counts them.
    assert {"seq:2:C10:f16", "seq:2:L10:lag1:f16", "seq:4:C5:f16", "seq:2:L20:f16"} <= found
    assert all(plan.wire == "float16" and not plan.exact for plan in default_plans(VIT, 197))


def test_default_plans_leave_out_what_a_family_or_a_length_does_not_have():
    assert {plan.lag for plan in default_plans(LLAMA, 512)} == {0}
    assert {plan.size for plan in default_plans(VIT, 3)} == {2, 3}
    assert default_plans(VIT, 1) == ()


@pytest.mark.parametrize(
    ("texts", "family", "message"),
    [
        ((), "ViTModel", "no plan to fine-tune for"),
        (("local",), "ViTModel", "local is exact"),
        (("seq:2:C4", "seq:2:full"), "ViTModel", "seq:2:full is exact"),
        (("local:int8",), "ViTModel", "local:int8 exchanges no means"),
        (("seq:2:full:half",), "ViTModel", "seq:2:full:half exchanges no means"),
        (("seq:2:C4:lag1",), "LlamaForCausalLM", "lag=1 is not supported"),
        (("seq:2:C4",), "Qwen2ForCausalLM-window", "sliding-window"),
    ],
)
def test_plans_that_cannot_be_trained_are_refused(texts, family, message):
    info = adopt(BY_NAME[family].model()).info
    with pytest.raises(PlanError, match=message):
        check_plans(plans_of(*texts), info)


def test_a_model_for_which_means_are_not_defined_has_no_default_plans():
    check_defaults(adopt(BY_NAME["ViTModel"].model()).info)
    with pytest.raises(PlanError, match="sliding-window layers.*--plans"):
        check_defaults(adopt(BY_NAME["Qwen2ForCausalLM-window"].model()).info)


def test_steps_compute_in_float32_whatever_a_plan_is_measured_in():
    plans = plans_of("seq:2:C4:int8", "seq:2:C4", "seq:2:C4:f16:half")
    assert trained_as(plans) == plans_of("seq:2:C4", "seq:2:C4:f16")


@given(st.integers(0, 2**32))
def test_every_step_takes_the_ends_and_one_more(seed):
    plans = default_plans(VIT, 257)
    drawn = Sandwich(plans, unequal=0.5).draw(random.Random(seed))
    assert list(drawn)[:2] == ["exact", "smallest"]
    assert drawn["exact"] == EXACT
    # 257 / (10 * 4) means, on four nodes.
    assert (drawn["smallest"].means, drawn["smallest"].size) == (6, 4)
    if "random" in drawn:
        trained = drawn["random"]
        assert str(trained).split(":shares")[0] in set(map(str, plans))
        assert len(trained.shares) in (0, trained.size)


def test_random_plans_cover_every_plan_and_unequal_partitions():
    plans = default_plans(VIT, 257)
    rng = random.Random(4)
    drawn = [Sandwich(plans, unequal=0.25).draw(rng).get("random") for _ in range(400)]
    found = [plan for plan in drawn if plan is not None]
    assert {str(plan).split(":shares")[0] for plan in found} == set(map(str, plans))
    unequal = sum(bool(plan.shares) for plan in found) / len(found)
    assert 0.15 < unequal < 0.4


def test_a_plan_keeps_its_own_shares_and_bytes_decide_which_is_smallest():
    plans = plans_of("seq:2:C4:shares=3/1", "seq:2:C3", "seq:2:L4:f16", "seq:3:full:f16")
    sandwich = Sandwich(plans, unequal=1.0)
    assert sandwich.smallest == plans_of("seq:2:L4:f16")
    drawn = [sandwich.draw(random.Random(seed)).get("random") for seed in range(60)]
    assert {plan.shares for plan in drawn if plan and plan.means == 4 and plan.wire == "float32"}
    for plan in drawn:
        if plan and plan.means == 4 and plan.wire == "float32":
            assert plan.shares == (3.0, 1.0)
