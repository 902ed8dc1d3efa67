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


@pytest.mark.parametrize("grouping", ["L", "C"])
@pytest.mark.parametrize("case", MEANS, ids=lambda case: case.name)
def test_gradients_equal_those_of_the_oracle(case, grouping):
    model, inputs = case.model(), case.inputs(batch=1, padding=5)
    mask = inputs.get("attention_mask")
    for lag in (0,) if case.layout.rotary else (0, 1):
        plan = prism.Plan.parse(f"seq:3:{grouping}2{':lag1' if lag else ''}:shares=3/1/2")
        sizes = PARTS[case.tokens]["3/1/2"]
        oracle = repeated_means(model, case.layout, sizes, 2, lag, mask, grouping == "C")
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


@pytest.mark.parametrize("plan", ["seq:3:full", "seq:3:L2", "seq:3:L2:lag1", "seq:3:L100"])
def test_a_mask_over_mel_frames_hides_no_token(plan):
    case = BY_NAME["WhisperEncoder"]
    model, inputs = case.model(), case.inputs()
    plan = prism.Plan.parse(plan + ":shares=3/1/2")
    mask = torch.ones(2, 2 * case.tokens, dtype=torch.long)
    mask[1, 7:] = 0
    parts = PARTS[case.tokens]["3/1/2"]
    oracle = repeated_means(model, case.layout, parts, plan.means or 100, plan.lag)
    with torch.no_grad():
        expected = oracle(**inputs)
        with prism.virtual(model, plan, mask):
            assert_equal_outputs(model(**inputs, attention_mask=mask), expected)


def test_the_innermost_of_nested_plans_counts():
    case = BY_NAME["GPT2LMHeadModel"]
    model, inputs = case.model(), case.inputs()
    coarse, fine = (prism.Plan.parse(text) for text in ("seq:2:L1", "seq:3:L3"))

    def answer():
        return model(**inputs).logits

    with torch.no_grad():
        plain = answer()
        with prism.virtual(model, coarse):
            expected = answer()
        with prism.virtual(model, fine):
            inner = answer()
        assert not torch.equal(inner, expected)
        with prism.virtual(model, coarse):
            # The blocks are the same ones behind the bare model.
            with prism.virtual(model, fine), prism.virtual(model.transformer, fine):
                assert torch.equal(answer(), inner)
            assert torch.equal(answer(), expected)
            with pytest.raises(KeyError), prism.virtual(model, fine):
                raise KeyError
            assert torch.equal(answer(), expected)
        assert torch.equal(answer(), plain)


def test_several_models_keep_their_own_plans():
    case = BY_NAME["BertModel"]
    inputs = case.inputs()
    one, other = case.model(), case.model()
    other.config = one.config  # as models made from one configuration object have it
    with torch.no_grad():
        plain = one(**inputs)[0]
        with prism.virtual(one, prism.Plan.parse("seq:2:L1")):
            split = one(**inputs)[0]
            torch.testing.assert_close(other(**inputs)[0], plain)
            with prism.virtual(other, prism.Plan.parse("seq:2:L1")):
                assert torch.equal(other(**inputs)[0], split)
            assert torch.equal(one(**inputs)[0], split)
        assert torch.equal(one(**inputs)[0], plain)
        assert torch.equal(other(**inputs)[0], plain)


def test_plans_that_mean_nothing_are_refused():
    windows = BY_NAME["Qwen2ForCausalLM-window"].model()
    with (
        pytest.raises(PlanError, match="qwen2 has sliding-window layers.*instead of means"),
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
