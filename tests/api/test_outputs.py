"""Forms of an output as a caller gets them, from three real nodes."""

import pytest
import torch
from tests.machines import alone, close, pixels
from tests.models.sentence_files import FLAGS, model_with
from transformers import BertConfig, BertModel

from prism.errors import RequestError
from prism.models.outputs import TopK
from prism.output_form import OutputForm

PLANS = ("local", "local@node2", "batch:3", "seq:3:full", "seq:node2+node0:full")


@pytest.fixture(scope="module")
def bert(cluster, tmp_path_factory):
    """A text encoder with the files of sentence-transformers, here and on the cluster."""
    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = BertModel(BertConfig(**sizes, intermediate_size=64, vocab_size=50)).eval()
    folder = tmp_path_factory.mktemp("encoder")
    model.save_pretrained(folder)
    model_with(folder, ["Transformer", "Pooling", "Normalize"], FLAGS)
    return model, cluster.load(str(folder)), folder


def texts(batch=4, length=9):
    random = torch.Generator().manual_seed(batch)
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[0, 4:] = 0
    return {
        "input_ids": torch.randint(1, 50, (batch, length), generator=random),
        "attention_mask": mask,
    }


def sentence_embeddings(model, inputs):
    """Return what sentence-transformers makes of a model's output: mean over tokens, length 1."""
    mask = inputs["attention_mask"][:, :, None]
    mean = (alone(model, **inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
    return mean / mean.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("plan", PLANS)
def test_embeddings_are_those_of_sentence_transformers(bert, plan):
    model, distributed, _ = bert
    inputs = texts()
    vectors = distributed(plan=plan, output="pooled", **inputs)
    assert vectors.shape == (4, 32) and close(vectors, sentence_embeddings(model, inputs))
    assert distributed.last_record.outcome == "ok"


@pytest.mark.parametrize("plan", ["seq:3:L1", "seq:2:C2:lag1"])
def test_embeddings_of_a_lossy_plan_are_the_pooled_output_of_that_plan(bert, plan):
    _, distributed, _ = bert
    inputs = texts()
    mask = inputs["attention_mask"][:, :, None]
    whole = distributed(plan=plan, **inputs).last_hidden_state
    expected = (whole * mask).sum(1) / mask.sum(1)
    vectors = distributed(plan=plan, output="pooled:mean", **inputs)
    assert close(vectors, expected)


@pytest.mark.parametrize("plan", PLANS)
def test_the_best_classes_come_with_their_probabilities(model, vit, plan):
    x = pixels(5)
    logits = alone(vit, pixel_values=x).logits
    best = model.submit(plan=plan, output="top_k:3", pixel_values=x).result(30).output
    assert isinstance(best, TopK)
    assert close(best.values, logits.topk(3).values)
    assert best.indices.equal(logits.topk(3).indices)
    assert close(best.probabilities, logits.softmax(1).topk(3).values)


@pytest.mark.parametrize("plan", PLANS)
def test_the_other_forms(model, vit, plan):
    x = pixels(5)
    expected = alone(vit, pixel_values=x)
    output = model(plan=plan, output="logits", pixel_values=x)
    assert type(output) is type(expected) and list(output) == ["logits"]
    assert close(output.logits, expected.logits)
    token = alone(vit.vit, pixel_values=x).last_hidden_state[:, 0]
    assert close(model(plan=plan, output=OutputForm("pooled"), pixel_values=x), token)
    assert type(model(plan=plan, output="full", pixel_values=x)) is type(expected)


def test_what_files_say_is_settled_where_the_request_comes_in(bert):
    model, distributed, folder = bert
    inputs = texts()
    distributed(output="pooled", **inputs)
    # Another device may have the weights alone: nobody looks at the files again.
    (folder / "modules.json").unlink()
    for plan in PLANS:
        vectors = distributed(plan=plan, output="pooled", **inputs)
        assert close(vectors, sentence_embeddings(model, inputs))


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("embedding", "unknown output 'embedding'; use full, logits, top_k"),
        (7, "unknown output '7'"),
        ("pooled:median", "'median' is no way to pool"),
        ("pooled:pooler", "pools nothing itself; use output='pooled:mean'"),
    ],
)
def test_what_a_model_does_not_have_is_refused_before_any_node_works(model, output, sentence):
    before = model.last_record
    for call in (model, model.submit):
        with pytest.raises(RequestError, match=sentence):
            call(output=output, pixel_values=pixels(1))
    assert model.last_record is before


def test_logits_of_a_model_without_a_head_are_refused(bert):
    _, distributed, _ = bert
    with pytest.raises(RequestError, match="and no logits; use output='full' or 'pooled'"):
        distributed(output="logits", **texts())
