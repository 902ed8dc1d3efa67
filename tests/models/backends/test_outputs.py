"""Every backend gives eager's outputs, for every family, size and mask; or says by name why not."""

from dataclasses import replace

import pytest
import torch
from tests.families import BY_NAME, CASES
from tests.models.backends.prepared import at_half, prepared

from prism.models.backends.selection import TOLERANCE, difference
from prism.models.load import adopt

GRAPHS = ("openvino", "onnxruntime")


def sizes_of(case):
    """Return batch, length and padding of calls unlike the one a graph was made with."""
    text = case.build.main_input_name == "input_ids"
    return [(1, 5, 0), (3, 13, 4), (2, 17, 0)] if text else [(1, 0, 0), (3, 0, 0)]


def assert_like_eager(call, loaded, case):
    for batch, length, padding in sizes_of(case):
        inputs = case.inputs(batch=batch, length=length, padding=padding)
        with torch.inference_mode():
            found, expected = call(**inputs), loaded.model(**inputs)
        assert type(found) is type(expected)
        mask = inputs.get("attention_mask")
        assert difference(found, expected, mask) <= TOLERANCE[loaded.precision]


@pytest.mark.parametrize("backend", GRAPHS)
@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_a_graph_gives_what_eager_gives(name, backend):
    case = BY_NAME[name]
    loaded = adopt(case.model())
    assert_like_eager(prepared(backend, loaded), loaded, case)


@pytest.mark.parametrize("backend", GRAPHS)
@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "ModernBertForMaskedLM"])
def test_rows_that_may_attend_to_nothing_spoil_no_other(name, backend):
    if name not in BY_NAME:
        pytest.skip(f"this transformers cannot open {name} up")
    case = BY_NAME[name]
    loaded = adopt(case.model())
    call = prepared(backend, loaded)
    inputs = case.inputs()
    inputs["attention_mask"][0, :12] = 0
    with torch.inference_mode():
        found, expected = call(**inputs), loaded.model(**inputs)
    assert difference(found, expected, inputs["attention_mask"]) <= TOLERANCE["float32"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_packed_products_give_what_eager_gives(case):
    loaded = adopt(case.model())
    call = prepared("packed", loaded)
    untouched = loaded.model(**case.inputs())
    assert_like_eager(call, loaded, case)
    assert torch.equal(loaded.model(**case.inputs())[0], untouched[0])


@pytest.mark.parametrize("name", ["ViTForImageClassification", "BertModel"])
def test_half_gives_what_eager_gives_at_half(name):
    case = BY_NAME[name]
    loaded = at_half(adopt(case.model()))
    call = prepared("openvino", loaded)
    for batch, length, padding in sizes_of(case):
        inputs = case.inputs(batch=batch, length=length, padding=padding)
        halves = {
            key: value.bfloat16() if value.is_floating_point() else value
            for key, value in inputs.items()
        }
        with torch.inference_mode():
            found, expected = call(**halves), loaded.model(**halves)
        assert difference(found, expected, inputs.get("attention_mask")) <= TOLERANCE["half"]


@pytest.mark.parametrize("backend", GRAPHS)
def test_what_may_be_left_out_is_filled_in(backend):
    case = BY_NAME["BertForSequenceClassification"]
    loaded = adopt(case.model())
    call = prepared(backend, loaded)
    inputs = case.inputs(padding=5)
    types = torch.ones_like(inputs["input_ids"])
    for given in (
        {"input_ids": inputs["input_ids"]},
        {**inputs, "token_type_ids": types},
        {**inputs, "token_type_ids": None, "attention_mask": inputs["attention_mask"].bool()},
    ):
        with torch.inference_mode():
            found, expected = call(**given), loaded.model(**given)
        assert difference(found, expected) <= TOLERANCE["float32"]


@pytest.mark.parametrize("backend", GRAPHS)
def test_what_a_graph_does_not_know_runs_the_model(backend):
    case = BY_NAME["LlamaForCausalLM"]
    loaded = adopt(case.model())
    call = prepared(backend, loaded)
    inputs = {**case.inputs(), "use_cache": False}
    with torch.inference_mode():
        for options in (
            {"logits_to_keep": 2},
            {"output_hidden_states": True},
            {"position_ids": torch.arange(3, 20).expand(2, -1)},
        ):
            found, expected = call(**inputs, **options), loaded.model(**inputs, **options)
            assert list(found) == list(expected)
            assert torch.equal(found.logits, expected.logits)


@pytest.mark.parametrize("backend", GRAPHS)
def test_the_part_below_the_head_can_be_prepared_too(backend):
    case = BY_NAME["BertForSequenceClassification"]
    loaded = adopt(case.model())
    base = replace(loaded, model=loaded.model.base_model)
    assert_like_eager(prepared(backend, base), base, case)


@pytest.mark.parametrize("backend", GRAPHS)
def test_outputs_stay_when_the_next_request_comes(backend):
    case = BY_NAME["ViTModel"]
    loaded = adopt(case.model())
    call = prepared(backend, loaded)
    with torch.inference_mode():
        first = call(**case.inputs(seed=1))
        kept = first.last_hidden_state.clone()
        call(**case.inputs(seed=2))
    assert torch.equal(first.last_hidden_state, kept)
