"""The form of an output: settled where a request comes in, made where the model ran."""

from dataclasses import replace

import pytest
import torch
from tests.families import BY_NAME, CASES, TOKENS, WIDTH, WORDS
from tests.models.sentence_files import FLAGS, model_with
from transformers import (
    BertConfig,
    BertForPreTraining,
    ViTConfig,
    ViTForImageClassification,
    WhisperForConditionalGeneration,
)
from transformers.modeling_outputs import (
    BaseModelOutput,
    CausalLMOutputWithPast,
    ImageClassifierOutput,
)

from prism.errors import RequestError
from prism.models.load import adopt
from prism.models.outputs import (
    Reduction,
    TopK,
    as_answer,
    pooled_width,
    settle_form,
    top_k,
)
from prism.output_form import NeededRows, OutputForm

# How each family is pooled when nobody says: of the classes whose model pools, that.
USUAL = {
    "ViTForImageClassification": "cls",
    "ViTModel": "pooler",
    "DeiTForImageClassification": "cls",
    "Dinov2ForImageClassification": "cls",
    "CLIPVisionModelWithProjection": "pooler",
    "CLIPTextModelWithProjection": "pooler",
    "SiglipVisionModel": "pooler",
}
UNPOOLED = {"WhisperForAudioClassification"}


def info_of(name):
    return adopt(BY_NAME[name].model()).info


def settled(name, text):
    return settle_form(info_of(name), OutputForm.parse(text))


@pytest.mark.parametrize("name", [case.name for case in CASES if case.name not in UNPOOLED])
def test_every_family_has_a_usual_way_to_pool(name):
    form = settled(name, "pooled")
    assert form == OutputForm("pooled", modes=(USUAL.get(name, "mean"),))
    # Settled is settled, and whatever was asked for beside it stays.
    assert settle_form(info_of(name), form) == form
    assert settled(name, "pooled:normalise") == replace(form, normalise=True)
    assert settled(name, "pooled:max") == OutputForm("pooled", modes=("max",))


def test_files_beside_a_model_come_before_what_is_usual(tmp_path):
    files = model_with(tmp_path, ["Transformer", "Pooling", "Normalize"], FLAGS)
    info = replace(info_of("ViTModel"), files=files)
    assert str(settle_form(info, OutputForm("pooled"))) == "pooled:mean:normalise"
    # And what the caller says before the files.
    assert str(settle_form(info, OutputForm("pooled", modes=("cls",)))) == "pooled:cls"


def test_files_that_are_not_understood_are_in_the_way_of_their_pooling_only(tmp_path):
    files = model_with(tmp_path, ["Transformer", "Pooling", "Dense"], FLAGS)
    info = replace(info_of("BertModel"), files=files)
    with pytest.raises(RequestError, match="Pooling, Dense"):
        settle_form(info, OutputForm("pooled"))
    for text in ("full", "pooled:mean"):
        form = OutputForm.parse(text)
        assert settle_form(info, form) == form


@pytest.mark.parametrize("text", ["logits", "top_k:3"])
@pytest.mark.parametrize("name", ["BertModel", "ViTModel", "CLIPVisionModelWithProjection"])
def test_logits_of_a_model_without_a_head_are_refused(name, text):
    with pytest.raises(RequestError, match=f"{name} gives .* and no logits; use output='full'"):
        settled(name, text)


def test_logits_under_other_names_are_no_logits():
    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    info = adopt(BertForPreTraining(config)).info
    with pytest.raises(RequestError, match="prediction_logits, .* and no logits"):
        settle_form(info, OutputForm("logits"))


def test_pooling_by_a_model_that_pools_nothing_is_refused():
    with pytest.raises(RequestError, match="GPT2LMHeadModel gives loss, logits, .*pooled:mean"):
        settled("GPT2LMHeadModel", "pooled:pooler")


@pytest.mark.parametrize("text", ["pooled", "pooled:mean"])
def test_pooling_where_a_decoder_may_follow_is_refused(text):
    with pytest.raises(RequestError, match="not defined for WhisperForAudioClassification"):
        settled("WhisperForAudioClassification", text)
    whole = WhisperForConditionalGeneration(BY_NAME["WhisperEncoder"].model().config)
    with pytest.raises(RequestError, match="use output='full', or WhisperEncoder"):
        settle_form(adopt(whole).info, OutputForm.parse(text))


def reduction(name, text, **inputs):
    return Reduction(info_of(name), settled(name, text), inputs)


MASK = {"attention_mask": torch.tensor([[0, 1, 1]])}


@pytest.mark.parametrize(
    ("name", "text", "inputs", "rows"),
    [
        # Where the whole output follows from one row, or the caller wants the last, as ever.
        ("ViTForImageClassification", "full", {}, NeededRows(first=1)),
        ("ViTForImageClassification", "top_k", {}, NeededRows(first=1)),
        ("LlamaForCausalLM", "logits", {"logits_to_keep": 2}, NeededRows(last=2)),
        ("LlamaForCausalLM", "logits", {}, NeededRows()),
        # A class token travels with nobody.
        ("ViTForImageClassification", "pooled", {}, NeededRows(first=1)),
        ("ViTModel", "pooled", {}, NeededRows(first=1)),
        ("CLIPVisionModelWithProjection", "pooled", {}, NeededRows(first=1)),
        ("BertModel", "pooled:cls", {}, NeededRows(first=1)),
        ("BertModel", "pooled:pooler", {}, NeededRows(first=1)),
        ("BertModel", "pooled:cls", MASK, NeededRows(parts=1)),
        # Of a mean the sums do, one for each way to pool.
        ("BertModel", "pooled", MASK, NeededRows(parts=1)),
        ("BertForSequenceClassification", "pooled:cls+mean+max", {}, NeededRows(parts=3)),
        ("LlamaForCausalLM", "pooled", {"logits_to_keep": 2}, NeededRows(parts=1)),
        ("WhisperEncoder", "pooled", {}, NeededRows(parts=1)),
        # What comes after the blocks of these looks at all rows.
        ("GPT2LMHeadModel", "pooled", {}, NeededRows()),
        ("CLIPTextModelWithProjection", "pooled", {}, NeededRows()),
        ("SiglipVisionModel", "pooled", {}, NeededRows()),
    ],
)
def test_no_more_rows_come_together_than_the_form_needs(name, text, inputs, rows):
    assert reduction(name, text, **inputs).rows() == rows


@pytest.mark.parametrize(
    ("name", "text", "base"),
    [
        ("LlamaForCausalLM", "pooled", True),
        ("LlamaForCausalLM", "logits", False),
        ("BertModel", "pooled", False),
        ("ViTForImageClassification", "pooled", True),
        ("CLIPVisionModelWithProjection", "pooled", False),
    ],
)
def test_an_embedding_needs_no_head(name, text, base):
    assert reduction(name, text).base_only is base


def test_logits_are_an_output_that_holds_nothing_else():
    output = CausalLMOutputWithPast(loss=torch.ones(()), logits=torch.randn(2, 3, WORDS))
    made = reduction("LlamaForCausalLM", "logits")(output)
    assert type(made) is CausalLMOutputWithPast and list(made) == ["logits"]
    assert made.logits is output.logits


def test_an_output_without_what_is_wanted_is_the_requests_error():
    output = BaseModelOutput(last_hidden_state=torch.zeros(1, 2, WIDTH))
    with pytest.raises(RequestError, match="gave last_hidden_state and not logits; use output="):
        reduction("ViTForImageClassification", "logits")(output)
    with pytest.raises(RequestError, match="gave last_hidden_state and not a pooled vector"):
        reduction("ViTModel", "pooled")(output)


def classifier(labels, **config):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = ViTConfig(**sizes, intermediate_size=8, num_labels=labels, **config)
    return adopt(ViTForImageClassification(config)).info


@pytest.mark.parametrize("k", [1, 3, 9])
def test_the_top_k_are_those_of_torch_with_their_probabilities(k):
    info, logits = classifier(5), torch.randn(4, 5)
    form = OutputForm("top_k", k=k)
    best = as_answer(form, Reduction(info, form, {})(ImageClassifierOutput(logits=logits)))
    expected = logits.topk(min(k, 5))
    assert isinstance(best, TopK)
    assert best.values.equal(expected.values) and best.indices.equal(expected.indices)
    torch.testing.assert_close(best.probabilities, logits.softmax(1).gather(1, best.indices))


def test_every_row_of_a_language_model_has_its_best():
    logits = torch.randn(2, TOKENS, WORDS)
    best = top_k(info_of("LlamaForCausalLM"), logits, 2)
    assert best.values.shape == best.indices.shape == (2, TOKENS, 2)
    assert best.indices[:, :, 0].equal(logits.argmax(-1))


def test_labels_that_do_not_exclude_each_other_have_probabilities_of_their_own():
    info = classifier(3, problem_type="multi_label_classification")
    best = top_k(info, torch.tensor([[4.0, 5.0, -6.0]]), 2)
    torch.testing.assert_close(best.probabilities, torch.tensor([[5.0, 4.0]]).sigmoid())


def test_one_number_has_no_probability():
    assert top_k(classifier(1), torch.tensor([[4.0]]), 5).probabilities is None


@pytest.mark.parametrize("name", [case.name for case in CASES if case.name not in UNPOOLED])
def test_the_width_of_a_pooled_vector_is_known_before_it_is_made(name):
    inputs, info, form = BY_NAME[name].inputs(), info_of(name), settled(name, "pooled")
    made = Reduction(info, form, inputs)
    model = BY_NAME[name].model()
    with torch.inference_mode():
        output = (model.base_model if made.base_only else model)(**inputs)
    assert made(output).shape[1] == pooled_width(info, form)


def test_vectors_of_several_modes_follow_each_other():
    assert pooled_width(info_of("BertModel"), OutputForm.parse("pooled:cls+mean")) == 2 * WIDTH
