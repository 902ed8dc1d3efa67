"""Copies at other precisions: what they compute, share and refuse, for every family."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.families import BY_NAME, CASES, real_rows
from torch import nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

import prism
from prism.errors import UnsupportedPrecision
from prism.models import precision as precisions
from prism.models import processor
from prism.models.int8 import Int8Linear
from prism.models.load import adopt
from prism.models.packed import PackedLinear, can_pack
from prism.models.precision import at_precision, own_bytes
from prism.plan import Plan

HALF = 0.05  # relative errors of outputs: of bfloat16, which keeps 8 bits, after three blocks
INT8 = 0.15
ERRORS = {"half": HALF, "int8": INT8}


@pytest.fixture(autouse=True)
def bfloat16(monkeypatch):
    """Let copies in bfloat16 be made on every machine that runs these tests."""
    monkeypatch.setattr(precisions, "has_bfloat16", lambda: True)


def answers(model, inputs):
    dtype = next(model.parameters()).dtype
    cast = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in inputs.items()
    }
    with torch.inference_mode():
        return real_rows(model(**cast), inputs.get("attention_mask"))


def relative_error(actual, expected):
    return max(
        float((actual[key].float() - expected[key]).norm() / expected[key].norm())
        for key in expected
    )


@pytest.mark.parametrize("precision", ["half", "int8"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_copy_answers_nearly_the_same_and_leaves_the_original_alone(case, precision):
    model, inputs = case.model(), case.inputs()
    expected = answers(model, inputs)
    copy = at_precision(adopt(model), precision)
    error = relative_error(answers(copy.model, inputs), expected)
    assert 0 < error < ERRORS[precision]
    again = answers(model, inputs)
    assert all(torch.equal(again[key], expected[key]) for key in expected)


@pytest.mark.parametrize("precision", ["half", "int8"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_partitions_of_a_copy_compute_what_the_whole_copy_does(case, precision):
    inputs = case.inputs(batch=1)
    copy = at_precision(adopt(case.model()), precision).model
    whole = answers(copy, inputs)
    with prism.virtual(copy, Plan.parse("seq:3:full:shares=3/1/2"), inputs.get("attention_mask")):
        parts = answers(copy, inputs)
    # Other rows are rounded together, and sums are in another order: as far as rounding goes.
    assert (
        relative_error(parts, {key: value.float() for key, value in whole.items()})
        < ERRORS[precision]
    )


def test_a_float32_copy_shares_everything_but_hooks():
    model = BY_NAME["ViTForImageClassification"].model()
    model.register_forward_pre_hook(lambda *_: pytest.fail("a hook of the original ran"))
    copy = at_precision(adopt(model), "float32").model
    assert copy is not model
    mine, theirs = dict(model.named_parameters()), dict(copy.named_parameters())
    assert all(mine[name] is theirs[name] for name in mine)
    assert copy.config is model.config
    copy(pixel_values=torch.zeros(1, 3, 16, 16))


def test_int8_rounds_the_products_of_the_blocks_and_shares_the_rest():
    model = BY_NAME["ViTForImageClassification"].model()
    loaded = adopt(model)
    copy = at_precision(loaded, "int8")
    before, after = dict(model.named_modules()), dict(copy.model.named_modules())
    rounded = {name for name in before if isinstance(after.get(name), Int8Linear)}
    assert rounded == {
        name for name, module in before.items() if isinstance(module, nn.Linear) and "layer" in name
    }
    assert isinstance(after["classifier"], nn.Linear)
    assert after["classifier"].weight is before["classifier"].weight
    assert own_bytes(copy) < own_bytes(loaded)
    assert (copy.precision, copy.fingerprint) == ("int8", loaded.fingerprint)


def test_int8_of_gpt2_replaces_its_transposed_products():
    copy = at_precision(adopt(BY_NAME["GPT2LMHeadModel"].model()), "int8").model
    assert not any(isinstance(module, Conv1D) for module in copy.modules())


@pytest.mark.parametrize("shape", [(1, 1, 24), (2, 7, 24), (3, 0, 24), (5, 24)])
def test_packed_halves_multiply_to_the_same_bits(shape):
    if not can_pack(torch.device("cpu")):
        pytest.skip("this torch packs no weights")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 24, generator=generator).bfloat16()
    bias = torch.randn(40, generator=generator).bfloat16()
    x = torch.randn(shape, generator=generator).bfloat16()
    with torch.inference_mode():
        assert torch.equal(PackedLinear(weight, bias)(x), linear(x, weight, bias))
        assert torch.equal(PackedLinear(weight, None)(x), linear(x, weight))


def test_weights_that_are_tied_stay_tied():
    model = BY_NAME["GPT2LMHeadModel"].model()
    assert model.lm_head.weight is model.transformer.wte.weight
    copy = at_precision(adopt(model), "half").model
    assert copy.lm_head.weight is copy.transformer.wte.weight
    assert copy.lm_head.weight.dtype == torch.bfloat16


def test_frequencies_of_rotary_models_stay_float32():
    copy = at_precision(adopt(BY_NAME["LlamaForCausalLM"].model()), "half").model
    buffers = [each for each in copy.buffers() if each.is_floating_point()]
    assert buffers
    assert {each.dtype for each in buffers} == {torch.float32}


@settings(max_examples=30)
@given(
    st.integers(0, 40),
    st.integers(1, 60),
    st.integers(1, 30),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_an_int8_product_errs_by_no_more_than_rounding_explains(
    rows, width, out, bias, by_row, seed
):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator)
    weight = torch.randn(out, width, generator=generator)
    bias_O = torch.randn(out, generator=generator) if bias else None
    actual = Int8Linear(weight, bias_O, by_row=by_row)(x)
    # Scales of activations, of 7 or 8 bits, have as much room below 0 as above; those of the weight
    # are one per row.
    largest_R1 = x.abs().amax(1, keepdim=True)
    step_x = 2 * (largest_R1 if by_row or not rows else largest_R1.amax()) / 127
    step_w = weight.abs().amax(1) / 127
    bound = (
        x.abs().sum(1)[:, None] * step_w / 2
        + step_x * weight.abs().sum(1)
        + width * step_x * step_w / 2
    )
    assert ((actual - linear(x, weight, bias_O)).abs() <= bound + 1e-4).all()


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(1, 60), st.integers(0, 99))
def test_what_a_row_becomes_in_8_bits_depends_on_no_other_row(rows, width, seed):
    generator = torch.Generator().manual_seed(seed)
    # Rows of very different sizes, one of nothing: with a common scale the small would be lost.
    x = torch.randn(2, rows, width, generator=generator) * torch.logspace(-4, 3, rows)[:, None]
    x[0, 0] = 0.0
    product = Int8Linear(torch.randn(7, width, generator=generator), torch.ones(7), by_row=True)
    together = product(x)
    alone = [[product(row[None])[0] for row in sample] for sample in x]
    assert torch.equal(together, torch.stack([torch.stack(sample) for sample in alone]))
    assert torch.equal(together[0, 0], torch.ones(7))


@pytest.mark.parametrize("precision", ["half", "int8"])
def test_other_weights_than_float32_are_refused(precision):
    loaded = adopt(BY_NAME["BertModel"].model().to(torch.bfloat16))
    with pytest.raises(UnsupportedPrecision, match=f"{precision} is made of float32 .* bfloat16"):
        at_precision(loaded, precision)


def test_bfloat16_that_would_be_emulated_is_refused_unless_asked_for(monkeypatch):
    monkeypatch.setattr(precisions, "has_bfloat16", lambda: False)
    loaded = adopt(BY_NAME["BertModel"].model())
    with pytest.raises(UnsupportedPrecision, match="emulates.*--emulate-half"):
        at_precision(loaded, "half")
    assert at_precision(loaded, "half", emulate=True).precision == "half"


@pytest.mark.parametrize("precision", ["half", "int8"])
def test_too_little_memory_is_said_before_anything_is_made(precision, monkeypatch):
    monkeypatch.setattr(precisions, "free_memory_bytes", lambda device: 2**20)
    with pytest.raises(
        UnsupportedPrecision, match=f"{precision} of BertModel needs 0 MB more and 1"
    ):
        at_precision(adopt(BY_NAME["BertModel"].model()), precision)


def test_what_a_processor_can_do_is_read_from_its_flags(tmp_path, monkeypatch):
    for text, bfloat16, vnni in [
        ("processor: 0\nflags\t: fpu avx512_bf16 avx512_vnni\n", True, True),
        ("processor: 0\nFeatures\t: fp asimd bf16\n", True, False),
        ("processor: 0\nFeatures\t: fp asimd crc32\n", False, False),
    ]:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
        processor._flags.cache_clear()
        assert (processor.has_bfloat16(), processor.has("avx512_vnni")) == (bfloat16, vnni)
    monkeypatch.undo()
    processor._flags.cache_clear()
