"""Rows that arrive late join the first ones at the next block, and the answer is that of all."""

import pytest
import torch
from tests.families import BLOCKS, BY_NAME, assert_equal_outputs
from transformers import Dinov2Backbone, Dinov2Config, ViTConfig, ViTModel

from prism.engine.engine import Engine
from prism.engine.strategies import STRATEGIES
from prism.models.load import adopt
from prism.models.outputs import settle_form
from prism.output_form import OutputForm
from prism.plan import Plan


class LateRows:
    """Rows that are there once as many blocks have computed the first row."""

    def __init__(self, model, inputs, blocks):
        self.inputs, self.arrived, self.taken = inputs, False, False
        self.rows, self.waited_s = len(next(iter(inputs.values()))), 0.0
        self.blocks_run = []  # (index, rows) of every block that was computed
        for index, each in enumerate(model.layers):
            each.register_forward_hook(self.noting(index))
        model.layers[blocks - 1].register_forward_hook(self.arrive)

    def noting(self, index):
        return lambda module, args, output: self.blocks_run.append((index, len(args[0])))

    def arrive(self, *_):
        self.arrived = True

    def take(self):
        self.arrived = self.taken = True
        return self.inputs


def engine_and_parts(name, batch=4):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs(batch=batch)
    engine = Engine(adopt(model), "here")
    pixels = inputs["pixel_values"]
    return engine, inputs, {"pixel_values": pixels[:1]}, {"pixel_values": pixels[1:]}


@pytest.mark.parametrize("block", [1, 2, BLOCKS])
def test_the_first_row_computes_until_the_others_are_there(block):
    engine, inputs, first, others = engine_and_parts("ViTModel")
    with torch.no_grad():
        expected = engine.loaded.model(**inputs)
    rest = LateRows(engine.loaded.model, others, block)
    execution = engine.run(first, Plan.parse("batch:2"), length=17, rest=rest)
    assert_equal_outputs(execution.output, expected, atol=1e-6)
    assert rest.taken and execution.record.batch == 4
    joined = [(index, 4) for index in range(block, BLOCKS)]
    before = [(index, rows) for rows in (1, 3) for index in range(block)]
    assert rest.blocks_run == [*before, *joined]


def test_a_class_of_answers_is_joined_like_any_other():
    engine, inputs, first, others = engine_and_parts("ViTForImageClassification")
    with torch.no_grad():
        expected = engine.loaded.model(**inputs)
    rest = LateRows(engine.loaded.model.vit, others, 2)
    execution = engine.run(first, Plan.parse("batch:2"), length=17, rest=rest)
    assert_equal_outputs(execution.output, expected, atol=1e-6)


def test_only_rows_that_take_long_to_travel_are_sent_in_two_parts():
    strategy = STRATEGIES["batch"]
    vit = adopt(BY_NAME["ViTModel"].model()).info
    images = torch.zeros(4, 3, 224, 224, dtype=torch.uint8)
    first, rest = strategy.sent_first(vit, {"pixel_values": images})
    assert (len(first["pixel_values"]), len(rest["pixel_values"])) == (1, 3)
    for inputs in (
        {"pixel_values": images[:1]},
        {"pixel_values": images[:, :, :16, :16]},
        {"pixel_values": images, "labels": torch.zeros(4, dtype=torch.int64)},
    ):
        assert strategy.sent_first(vit, inputs) is None
    assert STRATEGIES["sequence"].sent_first(vit, {"pixel_values": images}) is None


def test_rows_that_a_model_looks_at_all_at_once_are_sent_at_once():
    strategy = STRATEGIES["batch"]
    llama = adopt(BY_NAME["LlamaForCausalLM"].model()).info
    assert strategy.sent_first(llama, {"input_ids": torch.ones(4, 4096, dtype=torch.int64)}) is None
    images = {"pixel_values": torch.zeros(4, 3, 224, 224)}
    small = {"num_hidden_layers": 2, "hidden_size": 24, "intermediate_size": 24}
    for recorded in (False, True):
        config = ViTConfig(**small, output_hidden_states=recorded)
        sent_first = strategy.sent_first(adopt(ViTModel(config)).info, images)
        assert (sent_first is None) == recorded
    backbone = Dinov2Backbone(Dinov2Config(**small))
    assert strategy.sent_first(adopt(backbone).info, images) is None


@pytest.mark.parametrize("blocks", [1, BLOCKS])
@pytest.mark.parametrize(
    ("name", "form"),
    [("ViTModel", "pooled"), ("ViTModel", "pooled:mean"), ("ViTForImageClassification", "top_k:2")],
)
def test_a_wanted_form_is_made_of_all_rows(name, form, blocks):
    engine, inputs, first, others = engine_and_parts(name)
    wanted = settle_form(engine.loaded.info, OutputForm.parse(form))
    plan = Plan.parse("batch:2")
    expected = engine.run(inputs, plan, length=17, output=wanted).output
    base = getattr(engine.loaded.model, "vit", engine.loaded.model)
    rest = LateRows(base, others, blocks)
    found = engine.run(first, plan, length=17, output=wanted, rest=rest).output
    values = found.items() if isinstance(found, dict) else [("", found)]
    for key, value in values:
        torch.testing.assert_close(value, expected[key] if key else expected, atol=1e-6, rtol=0)
