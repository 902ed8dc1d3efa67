"""The loss of fine-tuning: what it compares, of real tokens only, on a model of every family."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.families import BY_NAME, CASES
from transformers.utils.generic import ModelOutput

from prism.errors import RequestError
from prism.fidelity.distillation import answer_of, distance, label_loss
from prism.models.load import adopt
from prism.models.virtual import virtual
from prism.plan import Plan

PADDING = 4
BERT = "BertForSequenceClassification"


def answered(model, inputs):
    return answer_of(adopt(model).info, model, inputs)


def config_of(**values):
    return type("Config", (), {"problem_type": None, **values})


@pytest.mark.parametrize("case", [case for case in CASES if case.means], ids=lambda each: each.name)
def test_every_family_learns_from_its_distance_to_itself(case):
    model, inputs = case.model(), case.inputs(padding=PADDING)
    with torch.no_grad():
        target = answered(model, inputs)
    assert distance(answered(model, inputs), target, model.config).item() < 1e-5

    with virtual(model, Plan.parse("seq:3:L2"), inputs.get("attention_mask")):
        answer = answered(model, inputs)
    loss = distance(answer, target, model.config)
    loss.backward()
    assert loss.item() > 1e-5
    norms = [float(each.grad.norm()) for each in model.parameters() if each.grad is not None]
    assert torch.isfinite(torch.tensor(norms)).all() and max(norms) > 0


@pytest.mark.parametrize("name", ["BertModel", "LlamaForCausalLM", "DistilBertForMaskedLM", BERT])
def test_padding_says_nothing(name):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs(padding=PADDING)
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][-1, -PADDING:] = 7
    with torch.no_grad():
        answer, target = answered(model, other), answered(model, inputs)
    assert float(distance(answer, target, model.config)) < 1e-5


@given(st.integers(0, 2**20))
def test_classes_are_compared_by_their_divergence(seed):
    random = torch.Generator().manual_seed(seed)
    answer, target = torch.randn(2, 5, 7, generator=random)
    p, q = target.softmax(-1), answer.softmax(-1)
    expected = (p * (p / q).log()).sum() / 5
    found = distance({"logits": answer}, {"logits": target}, config_of())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_independent_labels_are_compared_as_such():
    several = config_of(problem_type="multi_label_classification")
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.0]])
    assert float(distance({"logits": logits}, {"logits": logits}, several)) == pytest.approx(0)
    # Adding the same to all logits changes no softmax, but every chance of its own.
    assert float(distance({"logits": logits + 3}, {"logits": logits}, several)) > 0.5


def test_an_embedding_counts_beside_the_tokens():
    case = BY_NAME["BertModel"]
    model, inputs = case.model(), case.inputs(padding=PADDING)
    with torch.no_grad():
        answer = answered(model, inputs)
        hidden = model(**inputs).last_hidden_state
    real = inputs["attention_mask"].bool()
    assert len(answer["last_hidden_state"]) == int(real.sum())
    torch.testing.assert_close(answer["embedding"][-1], hidden[-1, :-PADDING].mean(0))


def test_labels_are_learnt_by_their_cross_entropy():
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    expected = -logits.log_softmax(-1)[[0, 1], [1, 1]].mean()
    torch.testing.assert_close(label_loss({"logits": logits}, torch.tensor([1, 1])), expected)


def test_images_are_compared_by_what_the_model_pools():
    case = BY_NAME["CLIPVisionModelWithProjection"]
    model, inputs = case.model(), case.inputs()
    with torch.no_grad():
        answer, output = answered(model, inputs), model(**inputs)
    assert torch.equal(answer["embedding"], output.image_embeds)
    assert len(answer["last_hidden_state"]) == 2 * case.tokens


def test_a_model_without_answers_is_refused():
    info = adopt(BY_NAME["BertModel"].model()).info
    with pytest.raises(RequestError, match="neither logits nor an embedding"):
        answer_of(info, lambda **inputs: ModelOutput(nothing=None), {})
