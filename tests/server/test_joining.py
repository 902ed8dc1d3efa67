"""Inputs joined and outputs cut back give what each request gets by itself."""

import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from tests.families import CASES
from transformers.modeling_outputs import ModelOutput

from prism.models.inputs import prepare
from prism.models.load import adopt
from prism.models.outputs import Reduction, TopK, as_answer, settle_form
from prism.output_form import OutputForm
from prism.server.buckets import bucket_of, join_inputs, signature_of
from prism.server.cutting import Part, Uncuttable

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 50,
}


def bert(kind=hf.BertModel, **changes):
    torch.manual_seed(0)
    return kind(hf.BertConfig(**{**SMALL, "num_labels": 9, **changes})).eval()


def ids(rows, length, seed=0):
    generator = torch.Generator().manual_seed(100 * seed + length)
    return torch.randint(3, 49, (rows, length), generator=generator)


def answer(model, info, form, inputs):
    with torch.inference_mode():
        output = model(**prepare(info, inputs, model))
        return as_answer(form, Reduction(info, form, inputs)(output))


def tensors(output):
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if isinstance(output, ModelOutput) else output
    return [each for value in values if value is not None for each in tensors(value)]


def check_each(model, requests, form):
    """Join requests and cut the answer back; compare with each one's own."""
    info = adopt(model).info
    form = settle_form(info, OutputForm.parse(form))
    assert len({signature_of(info, inputs) for inputs in requests}) == 1
    inputs, length = join_inputs(info, requests)
    whole, rows, start = answer(model, info, form, inputs), 0, 0
    counts = [len(next(iter(each.values()))) for each in requests]
    rows = sum(counts)
    for each, count in zip(requests, counts, strict=True):
        tokens = each["input_ids"].shape[1] if "input_ids" in each else 0
        part = Part(start, start + count, rows, tokens, length).of(whole)
        alone = answer(model, info, form, each)
        assert type(part) is type(alone)
        for ours, theirs in zip(tensors(part), tensors(alone), strict=True):
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        start += count


@pytest.mark.parametrize("form", ["full", "pooled", "pooled:lasttoken+max", "pooled:pooler"])
def test_texts_of_one_bucket(form):
    masked = {"input_ids": ids(2, 12), "attention_mask": torch.ones(2, 12, dtype=torch.int64)}
    masked["attention_mask"][1, 5:] = 0
    check_each(bert(), [{"input_ids": ids(1, 9)}, masked, {"input_ids": ids(3, 16)}], form)


@pytest.mark.parametrize("form", ["full", "logits", "top_k:3"])
@pytest.mark.parametrize(
    "kind",
    [hf.BertForSequenceClassification, hf.BertForTokenClassification, hf.BertForMaskedLM],
)
def test_heads_with_a_value_per_token_or_per_text(kind, form):
    requests = [{"input_ids": ids(1, length)} for length in (9, 5, 7)]  # 9: as many as labels
    check_each(bert(kind), requests, form)


def test_a_head_that_marks_a_span():
    model = bert(hf.BertForQuestionAnswering, num_labels=2)
    check_each(model, [{"input_ids": ids(1, length)} for length in (9, 5)], "full")


def test_hidden_states_and_attentions():
    model = bert(output_hidden_states=True, output_attentions=True, attn_implementation="eager")
    check_each(model, [{"input_ids": ids(1, length)} for length in (8, 11)], "full")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_family(case):
    requests = [case.inputs(batch, seed=batch) for batch in (1, 3, 2)]
    if "input_ids" in requests[0]:
        requests = [case.inputs(1, length=length, seed=length) for length in (9, 14, 16)]
    check_each(case.model(), requests, "full")


def test_texts_of_one_length_without_masks_get_none():
    info = adopt(bert()).info
    inputs, length = join_inputs(info, [{"input_ids": ids(1, 7)}, {"input_ids": ids(2, 7)}])
    assert set(inputs) == {"input_ids"} and inputs["input_ids"].shape == (3, 7) and not length


def test_what_stays_alone_or_apart():
    info = adopt(bert()).info
    short, long = {"input_ids": ids(1, 9)}, {"input_ids": ids(1, 20)}
    assert signature_of(info, short) != signature_of(info, long)
    typed = {**short, "token_type_ids": torch.zeros(1, 9, dtype=torch.int64)}
    assert signature_of(info, typed) not in (None, signature_of(info, short))
    assert signature_of(info, {**short, "labels": torch.zeros(1, dtype=torch.int64)}) is None
    torch.manual_seed(0)
    config = hf.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50, num_labels=2)
    classifier = adopt(hf.GPT2ForSequenceClassification(config).eval()).info
    assert signature_of(classifier, short) is None  # it would look for padding of no id


def test_an_output_that_cannot_be_told_apart_is_not_cut():
    part = Part(0, 1, 2, tokens=3, length=4)
    with pytest.raises(Uncuttable, match="loss"):
        part.of(ModelOutput(loss=torch.tensor(1.0)))
    with pytest.raises(Uncuttable, match="may count tokens"):
        part.of(ModelOutput(unknown=torch.zeros(2, 4)))
    assert part.of(ModelOutput(unknown=torch.zeros(2, 5))).unknown.shape == (1, 5)
    top = TopK(torch.zeros(2, 4, 1), torch.zeros(2, 4, 1), None)
    assert part.of(top).values.shape == (1, 3, 1)


@given(st.integers(1, 5000))
def test_a_bucket_holds_its_length_and_little_padding(length):
    bound = bucket_of(length)
    assert bound >= length and bucket_of(bound) == bound
    assert bound <= 16 or bound < 1.5 * length
