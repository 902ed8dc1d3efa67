"""Forms of an output on real ranks, for every family: what they hold, what does not travel."""

from contextlib import contextmanager

import pytest
import torch
from tests.engine.fakes import FakeTransport
from tests.engine.ranks import Ranks
from tests.families import BLOCKS, BY_NAME, CASES, PARTS, TOKENS, WIDTH

from prism.engine.engine import Engine
from prism.errors import Cancelled, ModelFailed
from prism.models.load import adopt
from prism.models.virtual import virtual
from prism.output_form import OutputForm
from prism.plan import Plan

CLASS_TOKEN = {
    "ViTForImageClassification",
    "DeiTForImageClassification",
    "Dinov2ForImageClassification",
}
POOLED_BY_MODEL = {
    "ViTModel": "pooler_output",
    "SiglipVisionModel": "pooler_output",
    "CLIPVisionModelWithProjection": "image_embeds",
    "CLIPTextModelWithProjection": "text_embeds",
}
POOLED = [case for case in CASES if case.name != "WhisperForAudioClassification"]


@contextmanager
def ranks_of(case, model, size=3):
    ranks = Ranks(size, model)
    try:
        yield ranks
    finally:
        ranks.close()


def vectors(case, model, inputs):
    """Return what a caller would make of plain transformers, or of a model under a plan."""
    with torch.no_grad():
        if case.name in POOLED_BY_MODEL:
            return model(**inputs)[POOLED_BY_MODEL[case.name]]
        hidden_BND = model.base_model(**inputs).last_hidden_state
    if case.name in CLASS_TOKEN:
        return hidden_BND[:, 0]
    mask = inputs.get("attention_mask", torch.ones(hidden_BND.shape[:2]))[:, :, None]
    return (hidden_BND * mask).sum(1) / mask.sum(1)


@pytest.mark.parametrize("case", POOLED, ids=lambda case: case.name)
def test_pooled_is_what_a_caller_would_make_of_the_whole_output(case):
    model, inputs = case.model(), case.inputs(padding=5)
    mask = inputs.get("attention_mask")
    plans = ["local", "seq:3:full:shares=3/1/2"]
    if case.means:
        plans += ["seq:3:L2:shares=3/1/2", "seq:3:C2"]
        plans += [] if case.layout.rotary else ["seq:3:L3:lag1:shares=1/3/2"]
    with ranks_of(case, model) as ranks:
        for plan in plans:
            with virtual(model, Plan.parse(plan), mask):
                expected = vectors(case, model, inputs)
            executions = ranks.run(plan, inputs, output="pooled")
            torch.testing.assert_close(executions[0].output, expected, atol=1e-5, rtol=1e-5)
            if plan != "local":
                assert [each.output for each in executions[1:]] == [None, None]
        # The same ranks give the whole output afterwards.
        with torch.no_grad():
            expected = model(**inputs)
        whole = ranks.run("seq:3:full", inputs)[0].output
        for name, value in whole.items():
            if isinstance(value, torch.Tensor) and mask is None:
                torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["BertModel", "LlamaForCausalLM", "GPT2LMHeadModel"])
@pytest.mark.parametrize("modes", ["cls", "max", "lasttoken", "cls+max+mean", "weightedmean"])
def test_ways_to_pool_are_the_same_split_and_whole(name, modes):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs(padding=14)  # a partition of padding alone
    if case.layout.causal:  # where it is not, nothing is left to attend to on the left
        inputs["attention_mask"][0, :9] = 0
    with ranks_of(case, model) as ranks:
        for text in (f"pooled:{modes}", f"pooled:{modes}:normalise"):
            whole = ranks.run("local", inputs, output=text)[0].output
            assert whole.shape == (2, WIDTH * len(modes.split("+")))
            for plan in ("seq:3:full", "seq:3:full:shares=3/1/2"):
                split = ranks.run(plan, inputs, output=text)[0].output
                torch.testing.assert_close(split, whole, atol=1e-5, rtol=1e-5)


def sent_last(ranks, plan, inputs, output):
    """Return the bytes that each rank sends besides its means."""
    batch = 2
    means = (BLOCKS - 1) * 2 * 2 * WIDTH * batch * 4
    return [each.record.bytes_sent - means for each in ranks.run(plan, inputs, output=output)]


def test_helpers_send_one_row_for_each_way_to_pool():
    case = BY_NAME["BertModel"]
    row = WIDTH * 2 * 4
    with ranks_of(case, case.model()) as ranks:
        inputs, plan = case.inputs(padding=3), "seq:3:L2:shares=3/1/2"
        _, second, third = PARTS[TOKENS]["3/1/2"]
        assert sent_last(ranks, plan, inputs, "full") == [0, second * row, third * row]
        assert sent_last(ranks, plan, inputs, "pooled") == [0, row, row]
        assert sent_last(ranks, plan, inputs, "pooled:mean+max") == [0, 2 * row, 2 * row]
        # Where the first row is all, helpers are not even sent the last block's means.
        means = 2 * WIDTH * 2 * 4
        less = [-2 * means, -means, -means]
        assert sent_last(ranks, plan, inputs, "pooled:cls") == less
        assert sent_last(ranks, plan, inputs, "pooled:pooler") == less


def test_waiting_for_the_others_parts_is_booked_as_output():
    case = BY_NAME["BertModel"]
    transport = FakeTransport(arrival_s=10.0)
    engine = Engine(adopt(case.model()), "here")
    record = engine.run(
        case.inputs(),
        Plan.parse("seq:2:L2"),
        length=TOKENS,
        output=OutputForm("pooled", modes=("mean",)),
        transport=transport,
    ).record
    assert record.output_s == pytest.approx(10.0)
    assert record.comm_s == pytest.approx((BLOCKS - 1) * 10.0)


def test_a_model_that_projects_its_rows_in_the_end_is_pooled_behind_that():
    case = BY_NAME["OPTForCausalLM"]
    model, inputs = case.model(word_embed_proj_dim=16), case.inputs(padding=3)
    with ranks_of(case, model) as ranks:
        pooled = ranks.run("seq:3:full", inputs, output="pooled")[0].output
    assert pooled.shape == (2, 16)
    torch.testing.assert_close(pooled, vectors(case, model, inputs), atol=1e-5, rtol=1e-5)


def test_means_are_sent_so_small_that_half_precision_holds_them():
    case = BY_NAME["BertModel"]
    model = case.model()
    model.encoder.layer[-1].output.LayerNorm.bias.data += 20_000.0  # 17 of them are no float16
    inputs = case.inputs()
    with ranks_of(case, model) as ranks:
        whole = ranks.run("local", inputs, output="pooled")[0].output
        split = ranks.run("seq:3:full:f16", inputs, output="pooled")[0].output
    torch.testing.assert_close(split, whole, atol=0, rtol=2e-3)


@pytest.mark.parametrize("plan", ["local", "seq:3:full"])
@pytest.mark.parametrize("name", ["ViTForImageClassification", "LlamaForCausalLM"])
def test_logits_and_their_best_are_those_of_the_whole_output(name, plan):
    case = BY_NAME[name]
    inputs = case.inputs()
    with ranks_of(case, case.model()) as ranks:
        whole = ranks.run(plan, inputs)[0].output.logits
        assert list(ranks.run(plan, inputs, output="logits")[0].output) == ["logits"]
        assert ranks.run(plan, inputs, output="logits")[0].output.logits.equal(whole)
        best = ranks.run(plan, inputs, output="top_k:2")[0].output
    assert best["values"].equal(whole.topk(2).values)
    assert best["indices"].equal(whole.topk(2).indices)


def test_an_embedding_runs_no_head_and_reads_no_labels():
    case = BY_NAME["LlamaForCausalLM"]
    model, inputs = case.model(), case.inputs()
    model.lm_head.register_forward_pre_hook(lambda *_: pytest.fail("the head ran"))
    asked = {**inputs, "labels": inputs["input_ids"], "logits_to_keep": 1}
    with ranks_of(case, model) as ranks:
        for plan in ("local", "seq:3:full"):
            pooled = ranks.run(plan, asked, output="pooled")[0].output
            expected = vectors(case, model, inputs)
            torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)


def test_ranks_stay_in_step_or_close_when_a_pooled_request_fails():
    case = BY_NAME["BertModel"]
    inputs = case.inputs()
    with ranks_of(case, case.model()) as ranks:
        expected = ranks.run("seq:3:full", inputs, output="pooled")[0].output
        given_up = ranks.run("seq:3:full", inputs, output="pooled", should_cancel=lambda: True)
        assert all(isinstance(error, Cancelled) for error in given_up)
        ranks.regroup()
        tail = ranks.engines[0].loaded.model.pooler
        hook = tail.register_forward_pre_hook(lambda *_: torch.ones(2) @ torch.ones(3))
        failed = ranks.run("seq:3:full", inputs, output="pooled", timeout_s=5.0)
        hook.remove()
        assert isinstance(failed[0], ModelFailed) and ranks.transports[0].closed
        ranks.regroup()
        again = ranks.run("seq:3:full", inputs, output="pooled")[0].output
    torch.testing.assert_close(again, expected)
