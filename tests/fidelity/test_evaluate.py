"""What plans are worth: each metric against figures computed by hand, stopped and continued."""

import json
import math

import numpy as np
import pytest
import torch
from tests.fidelity.models import text, tokenizer
from torch.nn import functional
from transformers import GPT2Config, GPT2ForSequenceClassification

from prism.errors import PlanError, RequestError, UnsupportedPrecision
from prism.fidelity.copies import Copies, answer
from prism.fidelity.evaluate import evaluate
from prism.fidelity.samples import Samples, open_samples
from prism.models.inputs import prepare
from prism.models.load import load
from prism.models.precision import at_precision
from prism.models.processor import has_bfloat16
from prism.plan import Plan

LOCAL = Plan()
LOSSY = Plan.parse("seq:2:L2:f16")
COARSE = Plan.parse("seq:3:L1")


@pytest.fixture
def pictures(tmp_path):
    """Return a function that writes random pixels, with labels or without."""

    def write(count=12, labels=None):
        path = tmp_path / "pixels.npz"
        pixels = np.random.default_rng(3).normal(size=(count, 3, 16, 16)).astype(np.float32)
        extra = {} if labels is None else {"labels": np.array(labels)}
        np.savez(path, pixel_values=pixels, **extra)
        return str(path)

    return write


def outputs(loaded, samples, plan):
    inputs = samples.batch(range(len(samples)))
    return inputs, answer(loaded, plan, inputs)


def one_by_one(loaded, samples, plan):
    """Return what the model gives for each sample by itself, as a request of its own."""
    return [answer(loaded, plan, samples.batch([row])) for row in range(len(samples))]


def test_accuracy_is_lost_against_the_exact_answers_to_the_same_samples(model, pictures):
    vit = model("ViTForImageClassification")
    labels = [0, 1] * 6
    samples = open_samples(pictures(labels=labels), vit)
    local, lossy = evaluate(vit, samples, [LOCAL, COARSE], batch=5)
    seen = {
        plan: outputs(vit, samples, plan)[1].logits.argmax(-1) == torch.tensor(labels)
        for plan in (LOCAL, COARSE)
    }
    assert local.metric == lossy.metric == "accuracy"
    assert (local.drop, local.drop_low, local.drop_high) == (0, 0, 0)
    assert local.accuracy == pytest.approx(seen[LOCAL].float().mean().item())
    assert lossy.accuracy == pytest.approx(seen[COARSE].float().mean().item())
    assert lossy.drop == pytest.approx(local.accuracy - lossy.accuracy)
    assert lossy.drop_low <= lossy.drop <= lossy.drop_high
    assert lossy.extras["correct"] == int(seen[COARSE].sum())
    assert (lossy.count, lossy.plan) == (12, "seq:3:L1")


def test_without_labels_the_disagreement_bounds_the_loss(model, pictures):
    vit = model("ViTForImageClassification")
    samples = open_samples(pictures(), vit)
    (lossy,) = evaluate(vit, samples, [COARSE], batch=5)
    exact, seen = (outputs(vit, samples, plan)[1].logits.argmax(-1) for plan in (LOCAL, COARSE))
    assert lossy.metric == "agreement"
    assert lossy.drop == pytest.approx((exact != seen).float().mean().item())
    assert lossy.accuracy == pytest.approx(1 - lossy.drop)
    labelled = open_samples(pictures(labels=exact.tolist()), vit)
    assert evaluate(vit, labelled, [COARSE])[0].drop == pytest.approx(lossy.drop)


def test_an_encoder_is_judged_by_the_mean_over_its_real_tokens(model, tmp_path):
    bert = model("BertModel")
    path = tmp_path / "a.txt"
    path.write_text("\n".join(text(count, count) for count in (20, 30, 25, 40)))
    samples = open_samples(str(path), bert)
    (lossy,) = evaluate(bert, samples, [LOSSY], batch=4)
    means = [
        torch.cat([each.last_hidden_state.mean(1) for each in one_by_one(bert, samples, plan)])
        for plan in (LOCAL, LOSSY)
    ]
    cosines = functional.cosine_similarity(*means)
    assert lossy.metric == "embedding"
    assert lossy.accuracy == pytest.approx(cosines.mean().item(), abs=1e-5)
    assert lossy.drop == pytest.approx(1 - cosines.mean().item(), abs=1e-5) and lossy.drop > 1e-4
    assert lossy.extras["lowest_cosine"] == pytest.approx(cosines.min().item(), abs=1e-5)
    assert lossy.drop_low < lossy.drop < lossy.drop_high


@pytest.mark.parametrize(
    "name, pooled",
    [
        ("ViTModel", "pooler_output"),
        ("CLIPVisionModelWithProjection", "image_embeds"),
        ("CLIPTextModelWithProjection", "text_embeds"),
        ("SiglipVisionModel", "pooler_output"),
    ],
)
def test_what_a_model_pools_is_its_embedding(model, pictures, tmp_path, name, pooled):
    loaded = model(name)
    source = pictures(4)
    if loaded.model.main_input_name == "input_ids":
        source = str(tmp_path / "ids.npz")
        ids = np.random.default_rng(0).integers(3, 49, (4, 17))
        ids[:, -1] = 49
        np.savez(source, input_ids=ids)
    samples = open_samples(source, loaded)
    (lossy,) = evaluate(loaded, samples, [COARSE])
    exact, seen = (outputs(loaded, samples, plan)[1][pooled] for plan in (LOCAL, COARSE))
    assert lossy.accuracy == pytest.approx(
        functional.cosine_similarity(exact, seen).mean().item(), abs=1e-5
    )


def test_a_language_model_loses_next_tokens_and_perplexity(model, tmp_path):
    gpt2 = model("GPT2LMHeadModel")
    path = tmp_path / "a.txt"
    path.write_text(text(200))
    samples = open_samples(str(path), gpt2, length=17)
    local, lossy = evaluate(gpt2, samples, [LOCAL, LOSSY], batch=3)
    inputs, exact = outputs(gpt2, samples, LOCAL)
    _, seen = outputs(gpt2, samples, LOSSY)
    equal = (exact.logits.argmax(-1) == seen.logits.argmax(-1)).float().mean().item()
    assert lossy.metric == "language" and lossy.accuracy == pytest.approx(equal)
    perplexities = [
        math.exp(
            functional.cross_entropy(
                each.logits[:, :-1].flatten(0, 1), inputs["input_ids"][:, 1:].flatten()
            )
        )
        for each in (exact, seen)
    ]
    assert local.extras["perplexity"] == pytest.approx(perplexities[0], rel=1e-4)
    assert lossy.extras["perplexity"] == pytest.approx(perplexities[1], rel=1e-4)
    assert lossy.extras["perplexity_ratio"] == pytest.approx(
        perplexities[1] / perplexities[0], rel=1e-4
    )
    assert (lossy.count, lossy.extras["tokens"]) == (11, 11 * 17)


def test_padding_is_no_answer_of_a_token_classifier(model, tmp_path):
    roberta = model("RobertaForTokenClassification")
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text", text(30), text(5, 1), text(17, 2)]))
    samples = open_samples(str(path), roberta)
    (lossy,) = evaluate(roberta, samples, [LOSSY])
    exact, seen = (
        torch.cat([each.logits[0].argmax(-1) for each in one_by_one(roberta, samples, plan)])
        for plan in (LOCAL, LOSSY)
    )
    equal = exact == seen
    assert lossy.metric == "agreement" and lossy.extras == {"tokens": len(equal)}
    assert lossy.accuracy == pytest.approx(equal.float().mean().item())


@pytest.mark.parametrize("name", ["BertModel", "BertForSequenceClassification"])
def test_texts_are_measured_as_single_requests_whatever_the_batch(model, tmp_path, name):
    loaded = model(name)
    path = tmp_path / "a.csv"
    lengths = (30, 3, 17, 30, 1, 12, 3, 30, 0)
    rows = [f"{text(count, at)}{' w9' * (count == 0)}" for at, count in enumerate(lengths)]
    path.write_text("\n".join(["text", *rows]))
    samples = open_samples(str(path), loaded)
    plans = [LOCAL, LOSSY, COARSE, Plan.parse("seq:5:C1")]
    by_one, *others = (evaluate(loaded, samples, plans, batch=size) for size in (1, 2, 8))
    for found in others:
        for one, several in zip(by_one, found, strict=True):
            assert several.drop == pytest.approx(one.drop, abs=1e-6)
            assert several.drop_high == pytest.approx(one.drop_high, abs=1e-6)
    assert {each.longest for each in by_one} == {max(lengths) + 2}
    assert by_one[1].for_map().longest == max(lengths) + 2
    # Another plan, with more nodes than a text has tokens, changes nothing.
    assert evaluate(loaded, samples, plans[:3]) == others[-1][:3]
    with pytest.raises(RequestError, match="seq:33:L1 needs at least 33 tokens.*have 32"):
        evaluate(loaded, samples, [Plan.parse("seq:33:L1")])


def test_a_causal_classifier_without_a_padding_token_answers_one_text_at_a_time(tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_embd=32, n_layer=2, n_head=2, bos_token_id=49, eos_token_id=49
    )
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer(framed=False).save_pretrained(tmp_path)
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text", *(text(9, seed) for seed in range(3))]))
    loaded = load(str(tmp_path))
    (lossy,) = evaluate(loaded, open_samples(str(path), loaded), [LOSSY], batch=4)
    assert (lossy.metric, lossy.count) == ("agreement", 3)


def test_figures_are_of_their_own_sample(model, tmp_path):
    bert = model("BertForSequenceClassification")
    path = tmp_path / "a.csv"
    texts = [text(count, at) for at, count in enumerate((30, 3, 17, 30, 9))]
    path.write_text("\n".join(["text", *texts]))
    unlabelled = open_samples(str(path), bert)
    labels = [int(each.logits.argmax()) for each in one_by_one(bert, unlabelled, LOCAL)]
    labels[1] = 1 - labels[1]
    rows = (f"{text},{label}" for text, label in zip(texts, labels, strict=True))
    path.write_text("\n".join(["text,label", *rows]))
    (local,) = evaluate(bert, open_samples(str(path), bert), [LOCAL], batch=2)
    assert (local.metric, local.extras["correct"]) == ("accuracy", 4)


def test_exact_plans_lose_nothing(model, pictures):
    vit = model("ViTForImageClassification")
    plans = [Plan.parse(each) for each in ("local", "batch:2", "seq:2:full")]
    found = evaluate(vit, open_samples(pictures(), vit), plans)
    for each in found:
        assert (each.accuracy, each.drop, each.drop_high) == (1, 0, 0)
    assert [each.plan for each in found] == ["local", "local", "seq:2:full"]


@pytest.mark.parametrize("precision", ["half", "int8"])
def test_a_precision_is_measured_against_float32_one_request_at_a_time(model, pictures, precision):
    if precision == "half" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    vit = model("ViTForImageClassification")
    samples = open_samples(pictures(40), vit)
    shapes = (f"batch:2:{precision}", f"local@b:{precision}", f"seq:2:L2:{precision}")
    alone, named, split = evaluate(vit, samples, [Plan.parse(each) for each in shapes], batch=7)
    assert (alone.plan, split.plan) == (f"local:{precision}", f"seq:2:L2:{precision}")
    assert named == alone
    exact = torch.cat([each.logits.argmax(-1) for each in one_by_one(vit, samples, LOCAL)])
    copy = at_precision(vit, precision)
    with torch.inference_mode():
        seen = torch.cat(
            [
                copy.model(**prepare(vit.info, samples.batch([row]), copy.model)).logits.argmax(-1)
                for row in range(len(samples))
            ]
        )
    assert alone.drop == pytest.approx((exact != seen).float().mean().item(), abs=1.5 / 40)
    assert alone.drop_low <= alone.drop < alone.drop_high  # not exact by definition
    assert split.drop >= 0 and split.drop_high > 0


def test_a_precision_that_cannot_be_had_is_refused_before_any_work(model, pictures):
    vit = load(model("ViTForImageClassification").info.source, "bfloat16")
    asked = []
    samples = counted(open_samples(pictures(), vit), asked)
    with pytest.raises(UnsupportedPrecision, match="int8 is made of float32 weights"):
        evaluate(vit, samples, [LOCAL, Plan.parse("seq:2:L2:int8")])
    assert asked == []
    plans = [LOCAL, *(Plan.parse(each) for each in ("seq:2:L2:int8", "local:int8"))]
    usable, refused = Copies(vit).possible(plans)
    assert usable == (LOCAL,) and list(refused) == ["seq:2:L2:int8", "local:int8"]


class Stop(Exception):
    """Stands for Ctrl-C between two samples."""


def test_an_evaluation_that_was_stopped_goes_on_where_it_was(model, pictures, tmp_path):
    vit = model("ViTForImageClassification")
    samples = open_samples(pictures(), vit)
    whole = evaluate(vit, samples, [LOSSY, COARSE], batch=2)
    partial = tmp_path / "accuracy.json.partial"
    left = [7]

    def stop():
        left[0] -= 1
        if not left[0]:
            raise Stop

    with pytest.raises(Stop):
        evaluate(vit, samples, [LOSSY], batch=2, resume=partial, advance=stop)
    noted = json.loads(partial.read_text())["rows"]
    assert len(noted["seq:2:L2:f16"]) == 8

    asked = []
    again = counted(samples, asked)
    # Another plan joins, and other batches: what was measured is not measured again.
    advanced = []
    resumed = evaluate(
        vit, again, [LOSSY], batch=3, resume=partial, advance=lambda: advanced.append(1)
    )
    assert asked == [[0], [0], [6, 7, 8], [9, 10, 11]] and len(advanced) == len(samples)
    assert resumed == whole[:1]
    asked.clear()
    assert evaluate(vit, again, [LOSSY, COARSE], batch=2, resume=partial) == whole
    assert len(asked) == 8 and set(json.loads(partial.read_text())["rows"]) == {
        "seq:2:L2:f16",
        "seq:3:L1",
    }
    asked.clear()
    assert evaluate(vit, again, [LOSSY, COARSE], resume=partial) == whole
    assert asked == [[0], [0]]


def counted(samples, asked):
    """Return the same samples; note which are asked for."""

    class Counted(Samples):
        def __init__(self):
            self.name, self.kind, self.labels = samples.name, samples.kind, samples.labels
            self.digest, self.skipped, self._texts = samples.digest, 0, None

        def __len__(self):
            return len(samples)

        def batch(self, rows, least=1):
            asked.append(list(rows))
            return samples.batch(rows, least)

    return Counted()


def test_what_was_measured_is_on_disk_before_the_end(model, pictures, tmp_path):
    vit = model("ViTForImageClassification")
    partial = tmp_path / "partial"
    sizes = []
    samples = open_samples(pictures(), vit)

    def look():
        sizes.append(len(json.loads(partial.read_text())["rows"]["seq:3:L1"]))

    evaluate(vit, samples, [COARSE], batch=1, resume=partial, advance=look)
    assert sizes == sorted(sizes) and sizes[0] == 1
    assert len(json.loads(partial.read_text())["rows"]["seq:3:L1"]) == len(samples)


def test_what_was_measured_of_something_else_is_not_continued(model, pictures, tmp_path):
    vit, other = model("ViTForImageClassification"), model("ViTForImageClassification", **WIDER)
    partial = tmp_path / "partial"
    samples = open_samples(pictures(), vit)
    evaluate(vit, samples, [COARSE], resume=partial)
    before = partial.read_text()
    assert evaluate(other, samples, [COARSE], resume=partial) == evaluate(other, samples, [COARSE])
    assert partial.read_text() != before
    for content in ("", "[]", '{"belongs": 1}', before[:-9]):
        partial.write_text(content)
        assert evaluate(vit, samples, [COARSE], resume=partial) == evaluate(vit, samples, [COARSE])


def test_what_is_no_number_is_no_answer(model, pictures):
    broken = model("ViTForImageClassification", layer_norm_eps=math.nan)
    with pytest.raises(RequestError, match="gives NaN on these samples"):
        evaluate(broken, open_samples(pictures(), broken), [COARSE])


WIDER = {"layer_norm_eps": 1e-3}


def test_what_cannot_be_measured_is_refused_before_any_work(model, pictures, tmp_path):
    vit, llama = model("ViTForImageClassification"), model("LlamaForCausalLM")
    samples = open_samples(pictures(), vit)
    with pytest.raises(RequestError, match="seq:18:L1 needs at least 18 tokens.*have 17"):
        evaluate(vit, samples, [Plan.parse("seq:18:L1")])
    with pytest.raises(RequestError, match="seq:2:L2:f16 is asked for twice"):
        evaluate(vit, samples, [LOSSY, Plan.parse("seq:a+b:L2:f16")])
    path = tmp_path / "a.txt"
    path.write_text(text(40))
    texts = open_samples(str(path), llama, length=20)
    with pytest.raises(PlanError, match="seq:2:L2:lag1: llama keeps positions in its keys"):
        evaluate(llama, texts, [Plan.parse("seq:2:L2:lag1")])
    bert = model("BertForSequenceClassification", num_labels=1)
    with pytest.raises(RequestError, match="one number per sample"):
        evaluate(bert, open_samples(str(path), bert), [LOSSY])


def test_the_digits_table_is_found_again():
    digits = load("digits")
    samples = open_samples("digits", digits, limit=60, seed=4)
    local, lossy = evaluate(digits, samples, [LOCAL, Plan.parse("seq:2:L10:f16")], batch=30)
    assert local.accuracy >= 0.9 and lossy.metric == "accuracy"
    assert lossy.extras["agreement"] >= 0.9
    assert lossy.drop_low <= 0.02 <= lossy.drop_high  # as 400 samples say
