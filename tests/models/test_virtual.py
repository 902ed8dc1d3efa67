"""Gradients through the in-process form are those of the oracle."""

import pytest
import torch
from tests.families import BY_NAME, CASES, PARTS, assert_equal_outputs
from tests.oracle import repeated_means
from transformers import T5Config, T5EncoderModel

import prism
from prism.errors import PlanError, UnsupportedModel

MEANS = [case for case in CASES if case.means]


def gradients(model, inputs):
    model.zero_grad()
    output = model(**inputs)
    # All elements of the first output count differently.
    first = output[0]
    mask = inputs.get("attention_mask")
    if mask is not None and tuple(first.shape[:2]) == tuple(mask.shape):
        first = first[mask.bool()]
    weights = torch.linspace(-1, 1, first.numel()).view_as(first)
    (first * weights).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("case", MEANS, ids=lambda case: case.name)
def test_gradients_equal_those_of_the_oracle(case):
    model, inputs = case.model(), case.inputs(batch=1, padding=5)
    mask = inputs.get("attention_mask")
    for lag in (0,) if case.layout.rotary else (0, 1):
        plan = prism.Plan.parse(f"seq:3:L2{':lag1' if lag else ''}:shares=3/1/2")
        oracle = repeated_means(model, case.layout, PARTS[case.tokens]["3/1/2"], 2, lag, mask)
        expected = gradients(oracle, inputs)
        with prism.virtual(model, plan, mask):
            actual = gradients(model, inputs)
        assert actual.keys() == expected.keys()
        # The bias of keys shifts all logits of a row alike: its gradient is rounding.
        used = [n for n, grad in expected.items() if grad.abs().max() > 1e-4]
        assert len(used) > len(expected) / 2
        for name in expected:
            scale = max(1.0, float(expected[name].abs().max()))
            torch.testing.assert_close(
                actual[name] / scale, expected[name] / scale, atol=2e-5, rtol=1e-4
            )


def test_plans_that_split_nothing_change_nothing():
    case = BY_NAME["BertModel"]
    model, inputs = case.model(), case.inputs()
    with torch.no_grad():
        plain = model(**inputs)
        for plan in ("local", "batch:2"):
            with prism.virtual(model, prism.Plan.parse(plan)):
                assert torch.equal(model(**inputs)[0], plain[0])
        with prism.virtual(model, prism.Plan.parse("seq:2:full"), inputs["attention_mask"]):
            assert_equal_outputs(model(**inputs), plain)
        assert torch.equal(model(**inputs)[0], plain[0])


def test_plans_that_mean_nothing_are_refused():
    windows = BY_NAME["ModernBertForMaskedLM"].model()
    with (
        pytest.raises(PlanError, match="modernbert has sliding-window layers.*instead of L2"),
        prism.virtual(windows, prism.Plan.parse("seq:2:L2")),
    ):
        pass
    rotary = BY_NAME["LlamaForCausalLM"].model()
    with (
        pytest.raises(PlanError, match="llama keeps positions in its keys"),
        prism.virtual(rotary, prism.Plan.parse("seq:2:full:lag1")),
    ):
        pass


def test_models_nobody_can_split_are_refused():
    model = T5EncoderModel(T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with (
        pytest.raises(UnsupportedModel, match="t5 cannot be partitioned.*relative-position"),
        prism.virtual(model, prism.Plan.parse("seq:2:full")),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("GPT2LMHeadModel", {"reorder_and_upcast_attn": True}),
        ("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}),
        ("DeiTForImageClassification", {"qkv_bias": False}),
        ("GPTNeoXForCausalLM", {"use_parallel_residual": False}),
        ("LlamaForCausalLM", {"attention_bias": True, "head_dim": 16}),
        ("OPTForCausalLM", {"word_embed_proj_dim": 16, "enable_bias": False}),
        ("RobertaForTokenClassification", {"pad_token_id": 1}),
    ],
)
def test_variants_of_a_family_keep_their_own_attention(name, changes):
    case = BY_NAME[name]
    model, inputs = case.model(**changes), case.inputs(padding=5)
    mask = inputs.get("attention_mask")
    oracle = repeated_means(model, case.layout, PARTS[case.tokens]["3/1/2"], 2, mask=mask)
    with torch.no_grad():
        for plan, expected in (("full", model(**inputs)), ("L2", oracle(**inputs))):
            with prism.virtual(model, prism.Plan.parse(f"seq:3:{plan}:shares=3/1/2"), mask):
                assert_equal_outputs(model(**inputs), expected, mask)
