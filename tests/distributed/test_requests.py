"""Requests one after another on one loaded model: shapes, plans, rows asked for, what they cost."""

import pytest
import torch
from tests.families import (
    BLOCKS,
    BY_NAME,
    HEADS,
    KEY_HEADS,
    PARTS,
    TOKENS,
    WIDTH,
    WORDS,
    assert_equal_outputs,
)
from tests.oracle import repeated_means
from transformers import WhisperForConditionalGeneration

from prism.errors import PlanError, RequestError


@pytest.fixture(scope="module")
def load(cluster):
    """Return, by family, the model here and the same model on the cluster, loaded once."""
    kept = {}

    def load(name, **changes):
        key = (name, *changes.items())
        if key not in kept:
            model = BY_NAME[name].model(**changes)
            kept[key] = model, cluster.load(model)
        return kept[key]

    return load


def plain(model, inputs):
    with torch.no_grad():
        return model(**inputs)


@pytest.mark.parametrize("name", ["BertModel", "GPT2LMHeadModel", "Qwen2ForCausalLM"])
def test_requests_of_other_shapes_follow_each_other(load, name):
    model, distributed = load(name)
    case = BY_NAME[name]
    requests = [
        (3, 29, 9, "seq:3:full:shares=3/1/2"),
        (1, 5, 0, "seq:2:full:shares=1/4"),
        (2, 3, 1, "seq:3:full"),
        (5, 12, 3, "batch:3:shares=1/0/2"),
        (1, 40, 0, "seq:3:L100"),
        (2, 29, 20, "seq:3:full"),
        (1, 1, 0, "local"),
    ]
    for seed, (batch, length, padding, plan) in enumerate(requests):
        inputs = case.inputs(batch, length, padding, seed)
        output = distributed(plan=plan, **inputs)
        assert_equal_outputs(output, plain(model, inputs), inputs["attention_mask"])
        record = distributed.last_record
        assert (record.batch, record.length, record.outcome) == (batch, length, "ok")


@pytest.mark.parametrize("name", ["BertModel", "GPT2LMHeadModel", "LlamaForCausalLM"])
@pytest.mark.parametrize("padding", [8, 14])
def test_partitions_of_nothing_but_padding_weigh_nothing(load, name, padding):
    model, distributed = load(name)
    case = BY_NAME[name]
    inputs = case.inputs(padding=padding)
    mask = inputs["attention_mask"]
    for lag in (0,) if case.layout.rotary else (0, 1):
        oracle = repeated_means(model, case.layout, PARTS[TOKENS]["3/1/2"], 2, lag, mask)
        plan = f"seq:3:L2{':lag1' if lag else ''}:shares=3/1/2"
        assert_equal_outputs(distributed(plan=plan, **inputs), plain(oracle, inputs), mask)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "OPTForCausalLM", "LlamaForCausalLM"])
@pytest.mark.parametrize("plan", ["seq:3:full:shares=3/1/2", "seq:3:L2:shares=3/1/2"])
def test_left_padding_of_a_whole_partition(load, name, plan):
    model, distributed = load(name)
    case = BY_NAME[name]
    inputs = case.inputs()
    mask = inputs["attention_mask"]
    mask[1, :9] = 0  # all of the first partition, one row of the second
    expected = model
    if "L2" in plan:
        expected = repeated_means(model, case.layout, PARTS[TOKENS]["3/1/2"], 2, mask=mask)
    output = distributed(plan=plan, **inputs)
    assert_equal_outputs(output, plain(expected, inputs), mask)


@pytest.mark.parametrize("name", ["OPTForCausalLM", "LlamaForCausalLM"])
@pytest.mark.parametrize("keep", [1, 4, 8, 17])
def test_only_the_last_logits_are_gathered(load, name, keep):
    model, distributed = load(name)
    inputs = BY_NAME[name].inputs()
    for plan in ("seq:3:full:shares=3/1/2", "seq:3:full:shares=1/3/2", "seq:3:full"):
        output = distributed(plan=plan, logits_to_keep=keep, **inputs)
        assert output.logits.shape == (2, keep, WORDS)
        assert_equal_outputs(output, plain(model, {**inputs, "logits_to_keep": keep}))
        assert distributed.last_record.outcome == "ok"


@pytest.mark.parametrize("name", ["ViTForImageClassification", "ViTModel", "LlamaForCausalLM"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_models_of_very_few_blocks(load, name, blocks):
    model, distributed = load(name, num_hidden_layers=blocks)
    case = BY_NAME[name]
    inputs = case.inputs()
    for lag in (0,) if case.layout.rotary else (0, 1):
        oracle = repeated_means(model, case.layout, PARTS[TOKENS]["3/1/2"], 2, lag)
        plan = f"seq:3:L2{':lag1' if lag else ''}:shares=3/1/2"
        for _ in range(2):
            assert_equal_outputs(distributed(plan=plan, **inputs), plain(oracle, inputs))
            assert distributed.last_record.outcome == "ok"


def test_a_decoder_behind_a_partitioned_encoder(cluster):
    config = BY_NAME["WhisperEncoder"].model().config
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config).eval()
    inputs = {
        **BY_NAME["WhisperEncoder"].inputs(),
        "decoder_input_ids": torch.randint(3, WORDS, (2, 6)),
    }
    output = cluster.load(model)(plan="seq:3:full:shares=3/1/2", **inputs)
    torch.testing.assert_close(output.logits, plain(model, inputs).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("plan", ["full", "L2", "L2:lag1"])
def test_a_mask_over_mel_frames_hides_no_token(load, plan):
    model, distributed = load("WhisperEncoder")
    case = BY_NAME["WhisperEncoder"]
    inputs = case.inputs()
    mask = torch.ones(2, 2 * case.tokens, dtype=torch.long)
    mask[1, 7:] = 0
    oracle = model
    if plan != "full":
        lag = 1 if plan.endswith("lag1") else 0
        oracle = repeated_means(model, case.layout, PARTS[case.tokens]["3/1/2"], 2, lag)
    output = distributed(plan=f"seq:3:{plan}:shares=3/1/2", **inputs, attention_mask=mask)
    assert_equal_outputs(output, plain(oracle, inputs))


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM", "BertModel"])
def test_positions_of_the_caller_are_kept(load, name):
    model, distributed = load(name)
    inputs = BY_NAME[name].inputs()
    inputs["position_ids"] = torch.arange(TOKENS).flip(0).repeat(2, 1) * 2
    for plan in ("seq:3:full:shares=3/1/2", "seq:3:L100:shares=1/3/2"):
        assert_equal_outputs(distributed(plan=plan, **inputs), plain(model, inputs))


@pytest.mark.parametrize("shares", ["", ":shares=1/3/3"])
def test_large_rows_of_a_batch_are_computed_while_others_travel(load, shares):
    model, distributed = load("ViTModel", image_size=96, patch_size=16)
    inputs = {"pixel_values": torch.randn(7, 3, 96, 96)}
    output = distributed(plan=f"batch:3{shares}", **inputs)
    assert_equal_outputs(output, plain(model, inputs))
    record = distributed.last_record
    assert (record.batch, record.outcome) == (7, "ok")
    rows = [1, 3, 3] if shares else [3, 2, 2]
    assert [each.batch for each in record.per_node.values()] == rows[1:]
    # The first row travels alone; what it took is what it tells of the link.
    assert [each.input_bytes for each in record.per_node.values()] == [4 * 3 * 96 * 96] * 2


def test_images_of_another_size_have_another_length(load):
    model, distributed = load("ViTModel")
    inputs = {"pixel_values": torch.randn(2, 3, 24, 16), "interpolate_pos_encoding": True}
    output = distributed(plan="seq:3:full:shares=3/1/2", **inputs)
    assert_equal_outputs(output, plain(model, inputs))
    assert distributed.last_record.length == 25


@pytest.mark.parametrize("name", ["ViTModel", "GPT2LMHeadModel", "LlamaForCausalLM"])
def test_weights_in_half_precision(cluster, name):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs()
    distributed = cluster.load(model, dtype="bfloat16")
    output = distributed(plan="seq:3:full", **inputs)[0]
    assert output.dtype == torch.bfloat16
    pixels = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
    expected = plain(model.bfloat16(), pixels)[0]
    # A bfloat16 has 8 bits: a difference in the last one grows over the blocks.
    torch.testing.assert_close(output, expected, atol=0.15, rtol=0.05)


def means_bytes(record, batch):
    """Return by the paper's formula what one node sends to one other in one exchange."""
    wire = 2 if record.plan.wire == "float16" else 4
    return record.plan.means * WIDTH * batch * wire


@pytest.mark.parametrize("plan", ["seq:3:L2", "seq:3:L3:lag1", "seq:2:L2:f16", "seq:3:L2:lag1:f16"])
def test_bytes_sent_are_those_of_the_means(load, plan):
    _, distributed = load("ViTForImageClassification")
    distributed(plan=plan, **BY_NAME["ViTForImageClassification"].inputs(batch=3))
    record = distributed.last_record
    peers, unit = record.plan.size - 1, means_bytes(record, batch=3)
    # The class token is rank 0's own row: no output travels, and in the last block nobody else
    # asks for anything. Helpers were given their own patches, and rank 0's view of the rest.
    to_all, last = BLOCKS - 2 - record.plan.lag, 1
    assert record.bytes_sent == (peers * to_all + peers * peers) * unit
    assert record.messages == peers * (to_all + 1)
    for helper in record.per_node.values():
        assert helper.bytes_sent == (peers * to_all + last) * unit
        assert helper.messages == peers * to_all + last


def test_rotary_models_send_the_keys_and_values_of_their_key_heads(load):
    _, distributed = load("LlamaForCausalLM")
    distributed(plan="seq:3:L2", logits_to_keep=1, **BY_NAME["LlamaForCausalLM"].inputs())
    record = distributed.last_record
    head_dim = WIDTH // HEADS
    per_peer = BLOCKS * 2 * 2 * KEY_HEADS * head_dim * 2 * 4
    output = 1 * WIDTH * 2 * 4
    sent = [each.bytes_sent for each in (record, *record.per_node.values())]
    # Later partitions listen to earlier ones; the last one owns the row that is asked for, so the
    # second has nothing to do in the last block.
    assert sent == [2 * per_peer - per_peer // BLOCKS, per_peer, output]


def test_output_rows_are_sent_once(load):
    _, distributed = load("ViTModel")
    distributed(plan="seq:3:L2:shares=3/1/2", **BY_NAME["ViTModel"].inputs())
    record = distributed.last_record
    unit = means_bytes(record, batch=2)
    means = 2 * (BLOCKS - 1) * unit
    sent = [each.bytes_sent for each in (record, *record.per_node.values())]
    assert sent == [
        means + 2 * 2 * unit,
        *(means + rows * WIDTH * 2 * 4 for rows in PARTS[TOKENS]["3/1/2"][1:]),
    ]


@pytest.mark.parametrize("plan", ["local", "batch:2", "seq:3:L2", "seq:3:full"])
def test_the_parts_of_a_record_fit_into_its_total(load, plan):
    _, distributed = load("ViTModel")
    distributed(plan=plan, **BY_NAME["ViTModel"].inputs())
    record = distributed.last_record
    assert str(record.plan.shape) == (plan if plan != "local" else "local@node0")
    assert set(record.per_node) == {f"node{i}" for i in range(1, record.plan.size)}
    for each in (record, *record.per_node.values()):
        assert each.compute_s > 0 and each.comm_s >= 0 and each.output_s >= 0
        assert each.staging_s == 0  # on a CPU there is nothing to stage
        parts = each.compute_s + each.staging_s + each.comm_s + each.output_s
        assert parts <= each.total_s + 1e-6
        assert (each.bytes_sent > 0) == record.plan.exchanges


def test_a_refused_request_leaves_the_model_usable(load):
    model, distributed = load("BertModel")
    inputs = BY_NAME["BertModel"].inputs(length=3)
    with pytest.raises(PlanError, match="needs 4 nodes, the cluster has 3"):
        distributed(plan="seq:4:full", **inputs)
    with pytest.raises(RequestError, match="needs at least 3 tokens, the request has 2"):
        distributed(plan="seq:3:full", input_ids=inputs["input_ids"][:, :2])
    with pytest.raises(RequestError, match="contains 50; the vocabulary is 0..49"):
        distributed(plan="seq:3:full", input_ids=torch.full((1, 5), WORDS))
    output = distributed(plan="seq:3:full", **inputs)
    assert_equal_outputs(output, plain(model, inputs), inputs["attention_mask"])
