"""The steps of a fine-tuning: gradients through plans, and what decays."""

import random

import pytest
import torch
from tests.fidelity.models import text
from transformers import ViTConfig, ViTForImageClassification

from prism.fidelity.distillation import answer_of, distance
from prism.fidelity.samples import open_samples
from prism.fidelity.training import Settings, Training, _parameter_groups
from prism.models.virtual import virtual
from prism.plan import Plan

PLANS = ["local", "seq:2:L2", "seq:2:C2", "seq:3:L1:lag1", "seq:2:C3:lag1:f16:shares=3/1"]


@pytest.fixture
def tiny():
    torch.manual_seed(1)
    config = ViTConfig(
        image_size=16,
        patch_size=4,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=4,
    )
    return ViTForImageClassification(config)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(8, 1, 16, 16, generator=generator), torch.arange(8) % 4


def gradients(model, batch, text):
    model.zero_grad()
    with virtual(model, Plan.parse(text)):
        model(pixel_values=batch[0], labels=batch[1]).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("plan", PLANS)
def test_gradients_reach_every_parameter(tiny, batch, plan):
    for name, gradient in gradients(tiny, batch, plan).items():
        # One bias on all keys shifts all logits of a query alike: softmax does not see it.
        if not name.endswith(("key.bias", "k_proj.bias")):
            assert gradient.abs().max() > 1e-6, name


@pytest.mark.parametrize("text", ["seq:2:full", "seq:3:L17:shares=1/2/3"])
def test_gradients_of_an_exact_exchange_are_those_of_the_plain_model(tiny, batch, text):
    plain = gradients(tiny, batch, "local")
    for name, gradient in gradients(tiny, batch, text).items():
        torch.testing.assert_close(gradient, plain[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("text", ["seq:2:L1:lag1", "seq:2:C1"])
def test_gradients_flow_through_the_means_themselves(tiny, batch, text):
    pixels = batch[0].clone().requires_grad_()
    with virtual(tiny, Plan.parse(text)):
        tiny(pixel_values=pixels).logits.sum().backward()
    # The first partition, with the class token, is the upper half of the image; the lower half can
    # only be felt through its means.
    assert pixels.grad[:, :, 12:].abs().max() > 0


def test_texts_train_as_single_requests(model, tmp_path):
    bert = model("BertModel")
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text", *(text(count, count) for count in (9, 3, 20, 9, 1))]))
    samples = open_samples(str(path), bert)
    plans = tuple(map(Plan.parse, ("seq:2:C1:f16", "seq:5:L1")))
    training = Training(bert, samples, Settings(plans=plans, batch=5, unequal=0.0, steps=1))
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter += 0.05
    found = training._gradients()
    summed = [each.grad.clone() for each in training.model.parameters() if each.grad is not None]

    drawn = training._sandwich.draw(random.Random(training._chance()))
    assert list(found) == list(drawn) == ["exact", "smallest", "random"]
    training.model.zero_grad()
    for row in range(5):
        inputs = samples.batch([row], 5)  # of five nodes
        with torch.no_grad():
            target = answer_of(bert.info, bert.model, inputs)
        for plan in drawn.values():
            with virtual(training.model, plan, inputs["attention_mask"]):
                answer = answer_of(bert.info, training.model, inputs)
            (distance(answer, target, bert.model.config) / 15).backward()
    alone = [each.grad for each in training.model.parameters() if each.grad is not None]
    for one, other in zip(summed, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_vectors_do_not_decay(tiny):
    decaying, others = _parameter_groups(tiny)
    assert decaying["weight_decay"] > 0 and others["weight_decay"] == 0
    names = {id(parameter): name for name, parameter in tiny.named_parameters()}
    assert len(names) == len(decaying["params"]) + len(others["params"])
    for parameter in others["params"]:
        assert "norm" in names[id(parameter)] or names[id(parameter)].endswith("bias")
