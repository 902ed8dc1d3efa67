"""Every refusal names the input, what is wrong with it, and what the model takes."""

import math
import re
from dataclasses import replace

import pytest
import torch
from tests.families import BY_NAME, WORDS

from prism.errors import PlanError, RequestError
from prism.models.inputs import check_inputs, check_partition, main_input, prepare, token_mask
from prism.models.load import adopt
from prism.models.pixels import Normalisation
from prism.plan import Plan

IDS = torch.tensor([[3, 4, 5], [6, 7, 8]])
PIXELS = torch.zeros(2, 3, 16, 16)
FEATURES = torch.zeros(2, 80, 40)


@pytest.fixture(scope="module")
def known():
    names = (
        "BertModel",
        "ViTModel",
        "WhisperEncoder",
        "LlamaForCausalLM",
        "Qwen2ForCausalLM-window",
    )
    return {name: adopt(BY_NAME[name].model()) for name in names}


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("BertModel", {"input_ids": IDS}, (2, 3)),
        ("BertModel", {"input_ids": IDS.int(), "attention_mask": torch.ones(2, 3)}, (2, 3)),
        ("ViTModel", {"pixel_values": PIXELS}, (2, 17)),
        ("ViTModel", {"pixel_values": PIXELS.half()}, (2, 17)),
        (
            "ViTModel",
            {"pixel_values": torch.zeros(1, 3, 24, 16), "interpolate_pos_encoding": True},
            (1, 25),
        ),
        ("WhisperEncoder", {"input_features": FEATURES}, (2, 20)),
    ],
)
def test_batch_and_length_are_read_off(known, name, inputs, expected):
    assert check_inputs(known[name].info, inputs) == expected


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("BertModel", {}, "BertModel needs input_ids; it was given nothing"),
        (
            "BertModel",
            {"pixel_values": PIXELS},
            "BertModel needs input_ids; it was given pixel_values",
        ),
        ("BertModel", {"input_ids": IDS, "colour": 1}, "BertModel takes no input named 'colour'"),
        ("BertModel", {"input_ids": [[1]]}, "input_ids must be a tensor or a plain value, not"),
        ("BertModel", {"input_ids": 7}, "input_ids must be a tensor, not int 7"),
        ("BertModel", {"input_ids": None}, "input_ids must be a tensor, not None"),
        (
            "BertModel",
            {"input_ids": IDS, "attention_mask": 1},
            "attention_mask must be a tensor, not int 1",
        ),
        (
            "BertModel",
            {"input_ids": IDS, "token_type_ids": "first"},
            "token_type_ids must be a tensor, not str 'first'",
        ),
        (
            "LlamaForCausalLM",
            {"input_ids": IDS, "position_ids": 3.5},
            "position_ids must be a tensor, not float 3.5",
        ),
        (
            "WhisperEncoder",
            {"input_features": FEATURES, "attention_mask": True},
            "attention_mask must be a tensor, not bool True",
        ),
        ("BertModel", {"input_ids": IDS, "self": 1}, "BertModel takes no input named 'self'"),
        ("BertModel", {"input_ids": IDS, "kwargs": 1}, "BertModel takes no input named 'kwargs'"),
        ("BertModel", {"input_ids": IDS[0]}, "input_ids must be (batch, length), not (3,)"),
        ("BertModel", {"input_ids": IDS[:0]}, "input_ids must be (batch, length), not (0, 3)"),
        ("BertModel", {"input_ids": IDS.float()}, "input_ids must be integers, not torch.float32"),
        ("BertModel", {"input_ids": IDS > 4}, "input_ids must be integers, not torch.bool"),
        (
            "BertModel",
            {"input_ids": torch.full((1, 513), 3)},
            "input_ids has 513 tokens, the model takes 512; truncate",
        ),
        (
            "BertModel",
            {"input_ids": torch.tensor([[1, WORDS]])},
            "input_ids contains 50; the vocabulary is 0..49",
        ),
        (
            "BertModel",
            {"input_ids": torch.tensor([[1, -1]])},
            "input_ids contains -1; the vocabulary is 0..49",
        ),
        (
            "BertModel",
            {"input_ids": IDS, "attention_mask": torch.ones(2, 4)},
            "attention_mask must be (2, 3) like input_ids, not (2, 4)",
        ),
        (
            "BertModel",
            {"input_ids": IDS, "attention_mask": torch.full((2, 3), 2)},
            "attention_mask must hold 0 (padding) and 1 (token) only, not 2",
        ),
        (
            "BertModel",
            {"input_ids": IDS, "attention_mask": torch.full((2, 3), 0.5)},
            "attention_mask must hold 0 (padding) and 1 (token) only, not 0.5",
        ),
        (
            "BertModel",
            {"input_ids": IDS, "attention_mask": torch.full((2, 3), math.nan)},
            "attention_mask must hold 0 (padding) and 1 (token) only, not nan",
        ),
        (
            "BertModel",
            {"input_ids": IDS, "token_type_ids": IDS[:1]},
            "token_type_ids has 1 rows, input_ids has 2",
        ),
        (
            "ViTModel",
            {"pixel_values": PIXELS[0]},
            "pixel_values must be (batch, 3, 16, 16), not (3, 16, 16)",
        ),
        (
            "ViTModel",
            {"pixel_values": PIXELS[:, :1]},
            "pixel_values must be (batch, 3, 16, 16), not (2, 1, 16, 16)",
        ),
        (
            "ViTModel",
            {"pixel_values": PIXELS[..., :8]},
            "pixel_values must be (batch, 3, 16, 16), not (2, 3, 16, 8); resize the images",
        ),
        ("ViTModel", {"pixel_values": PIXELS.byte()}, "uint8 pixel_values need an image processor"),
        (
            "ViTModel",
            {"pixel_values": PIXELS.long()},
            "pixel_values must be uint8 or floating point, not torch.int64",
        ),
        (
            "WhisperEncoder",
            {"input_features": FEATURES[..., 1:]},
            "input_features must be (batch, 80, 40), not (2, 80, 39)",
        ),
        (
            "WhisperEncoder",
            {"input_features": FEATURES.long()},
            "input_features must be floating point, not torch.int64",
        ),
    ],
)
def test_what_the_model_cannot_take_is_refused(known, name, inputs, message):
    with pytest.raises(RequestError, match=re.escape(message)):
        check_inputs(known[name].info, inputs)


@pytest.mark.parametrize(
    ("name", "plan", "extra", "error", "message"),
    [
        ("LlamaForCausalLM", "seq:2:L2:lag1", {}, PlanError, "llama keeps positions in its keys"),
        (
            "Qwen2ForCausalLM-window",
            "seq:2:L4",
            {},
            PlanError,
            "qwen2 has sliding-window layers, where a mean that straddles the window has no "
            "defined weight; use full instead of means",
        ),
        (
            "BertModel",
            "seq:4:full",
            {},
            RequestError,
            "seq:4:full needs at least 4 tokens, the request has 3; use fewer nodes",
        ),
        (
            "BertModel",
            "seq:2:full",
            {"output_hidden_states": True},
            RequestError,
            "output_hidden_states is only available with the plans local and batch",
        ),
        (
            "BertModel",
            "seq:2:full",
            {"output_attentions": True},
            RequestError,
            "output_attentions is only available with the plans local and batch",
        ),
        (
            "LlamaForCausalLM",
            "seq:2:full",
            {"use_cache": True},
            RequestError,
            "seq:2:full runs without a cache; leave use_cache out",
        ),
    ],
)
def test_what_the_plan_cannot_serve_is_refused(known, name, plan, extra, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check_partition(known[name].info, Plan.parse(plan), {"input_ids": IDS, **extra}, length=3)


def test_what_is_asked_for_with_false_is_not_asked_for(known):
    info = known["LlamaForCausalLM"].info
    asked = {"output_attentions": False, "use_cache": False}
    check_partition(info, Plan.parse("seq:3:full"), asked, length=3)


@pytest.mark.parametrize("keep", [1, torch.tensor([0, 2])])
def test_what_may_be_a_number_or_a_tensor_may_be_both(known, keep):
    inputs = {"input_ids": IDS[:1].expand(2, -1), "logits_to_keep": keep}
    assert check_inputs(known["LlamaForCausalLM"].info, inputs) == (2, 3)


def test_only_a_mask_over_tokens_hides_tokens():
    mask = torch.tensor([[1, 1, 0]])
    assert token_mask("input_ids", mask).tolist() == [[True, True, False]]
    assert token_mask("pixel_values", mask.float()).tolist() == [[True, True, False]]
    assert token_mask("input_features", mask) is None
    assert token_mask("input_ids", torch.ones(1, 3)) is None
    assert token_mask("input_ids", None) is None


def test_what_a_class_takes_is_read_once(known, monkeypatch):
    info = known["BertModel"].info
    check_inputs(info, {"input_ids": IDS})
    monkeypatch.setattr(
        "prism.models.inputs.inspect.signature", lambda _: pytest.fail("read again")
    )
    assert check_inputs(info, {"input_ids": IDS}) == (2, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_are_brought_to_the_dtypes_of_the_model(dtype):
    model = BY_NAME["ViTModel"].model().to(dtype)
    info = adopt(model).info
    prepared = prepare(info, {"pixel_values": PIXELS.double(), "return_dict": True}, model)
    assert prepared["pixel_values"].dtype == dtype
    assert prepared["return_dict"] is True


def test_uint8_pixels_are_normalised_where_they_are_used(known):
    loaded = known["ViTModel"]
    info = replace(loaded.info, normalisation=Normalisation.symmetric())
    pixels = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    assert check_inputs(info, {"pixel_values": pixels}) == (1, 17)
    prepared = prepare(info, {"pixel_values": pixels}, loaded.model)
    expected = pixels.float() / 127.5 - 1
    torch.testing.assert_close(prepared["pixel_values"], expected, atol=1e-6, rtol=0)


def test_ids_become_long_and_no_cache_is_built(known):
    loaded = known["LlamaForCausalLM"]
    mask = torch.ones(2, 3, dtype=torch.bool)
    inputs = {"input_ids": IDS.int(), "attention_mask": mask}
    prepared = prepare(loaded.info, inputs, loaded.model)
    assert prepared["input_ids"].dtype == torch.long
    assert prepared["attention_mask"].dtype == torch.bool
    assert prepared["use_cache"] is False
    assert prepare(loaded.info, {**inputs, "use_cache": True}, loaded.model)["use_cache"] is True


def test_the_main_input_is_the_one_of_the_class(known):
    assert main_input(known["WhisperEncoder"].info) == "input_features"
