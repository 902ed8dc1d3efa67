"""One batch, one plan: what helpers leave out, what is recorded, what failures leave behind."""

from contextlib import contextmanager

import pytest
import torch
from tests.engine.ranks import Ranks
from tests.families import BLOCKS, BY_NAME, PARTS, TOKENS, assert_equal_outputs

from prism.engine.engine import Engine
from prism.errors import DeadlineExceeded, PlanError, RequestError
from prism.models.load import adopt
from prism.plan import Plan


@contextmanager
def ranks_of(name, size=3, model=None, **family):
    ranks = Ranks(size, model or BY_NAME[name].model(), **family)
    try:
        yield ranks
    finally:
        ranks.close()


def blocks_run(ranks, plan, inputs):
    """Return how many rows every block of every rank's model made, for each block that ended."""
    seen = [[] for _ in ranks.engines]
    hooks = []
    for rank, engine in enumerate(ranks.engines):
        layers = engine.loaded.model.base_model.layers
        for block in layers:
            hook = block.register_forward_hook(
                lambda _, args, output, rank=rank: seen[rank].append(output.shape[1])
            )
            hooks.append(hook)
    executions = ranks.run(plan, inputs)
    for hook in hooks:
        hook.remove()
    return executions, seen


@pytest.mark.parametrize(
    ("plan", "complete"),
    [("seq:3:L2:shares=3/1/2", 2), ("seq:3:full:shares=3/1/2", 2), ("seq:3:L2:lag1", 1)],
)
def test_helpers_end_early_when_only_the_first_row_is_asked_for(plan, complete):
    case = BY_NAME["ViTForImageClassification"]
    with ranks_of(case.name) as ranks:
        executions, rows = blocks_run(ranks, plan, case.inputs())
    parts = PARTS[TOKENS]["3/1/2" if "shares" in plan else ""]
    # The last block asks with the class token alone, on the head node alone.
    assert rows[0] == [*[parts[0]] * (BLOCKS - 1), 1]
    for rank in (1, 2):
        assert rows[rank] == [parts[rank]] * complete
        assert executions[rank].output is None
    assert executions[0].output.logits.shape == (2, 2)


@pytest.mark.parametrize("plan", ["seq:3:L2:shares=3/1/2", "seq:3:full", "seq:3:L3:lag1"])
@pytest.mark.parametrize("name", ["ViTForImageClassification", "BertForSequenceClassification"])
def test_leaving_out_rows_changes_no_answer(name, plan):
    case = BY_NAME[name]
    inputs, model = case.inputs(padding=5), case.model()
    with ranks_of(name, model=model) as ranks:
        pruned = ranks.run(plan, inputs)
    with ranks_of(name, model=model, first_row_classes=()) as ranks:
        whole = ranks.run(plan, inputs)
    assert_equal_outputs(pruned[0].output, whole[0].output, atol=1e-6)
    assert pruned[1].record.bytes_sent < whole[1].record.bytes_sent


@pytest.mark.parametrize("keep", [1, 9])
@pytest.mark.parametrize("name", ["OPTForCausalLM", "LlamaForCausalLM"])
def test_the_last_rows_alone_equal_all_rows_cut(name, keep):
    case = BY_NAME[name]
    inputs = case.inputs()
    with ranks_of(name) as ranks:
        whole = ranks.run("seq:3:L2:shares=3/1/2", inputs)[0].output.logits
        # Twice, and whole again: ranks with nothing to send must stay in step.
        for _ in range(2):
            part = ranks.run("seq:3:L2:shares=3/1/2", {**inputs, "logits_to_keep": keep})
            torch.testing.assert_close(part[0].output.logits, whole[:, -keep:])
        again = ranks.run("seq:3:L2:shares=3/1/2", inputs)[0].output.logits
    assert torch.equal(again, whole)


def test_records_account_for_the_whole_time():
    case = BY_NAME["ViTModel"]
    with ranks_of("ViTModel") as ranks:
        executions = ranks.run("seq:3:L2", case.inputs())
    for rank, execution in enumerate(executions):
        record = execution.record
        assert (record.node, record.batch, record.length) == (f"node{rank}", 2, TOKENS)
        parts = record.compute_s + record.staging_s + record.comm_s + record.output_s
        assert parts == pytest.approx(record.total_s)
        assert min(record.compute_s, record.comm_s) > 0
    assert executions[0].record.output_s > 0
    assert executions[1].record.output_s == executions[2].record.output_s == 0


def test_local_sends_nothing_and_is_plain_transformers():
    case = BY_NAME["GPT2LMHeadModel"]
    model, inputs = case.model(), case.inputs(padding=3)
    execution = Engine(adopt(model), "here").run(inputs, Plan.parse("local"))
    with torch.no_grad():
        assert torch.equal(execution.output.logits, model(**inputs).logits)
    record = execution.record
    assert (record.node, record.bytes_sent, record.messages) == ("here", 0, 0)
    assert (record.comm_s, record.output_s) == (0, 0)
    assert record.compute_s == record.total_s
    # Prefill only: no cache is kept.
    assert execution.output.past_key_values is None


def test_a_peer_that_never_posts_ends_in_a_deadline_and_a_clean_model():
    case = BY_NAME["ViTModel"]
    inputs = case.inputs()
    with ranks_of("ViTModel") as ranks:
        failed = ranks.run("seq:3:full", inputs, ranks=(0, 1), timeout_s=0.3)
        assert isinstance(failed[0], DeadlineExceeded)
        assert "did not answer rank 0 within 0.3 s" in str(failed[0])
        model = ranks.engines[0].loaded.model
        assert not any(module._forward_pre_hooks for module in model.modules())
        local = ranks.engines[0].run(inputs, Plan.parse("local")).output
    with torch.no_grad():
        assert torch.equal(local[0], case.model()(**inputs)[0])


def test_what_does_not_fit_is_refused_before_anything_is_sent():
    case = BY_NAME["LlamaForCausalLM"]
    with ranks_of(case.name, size=2) as ranks:
        inputs = case.inputs()
        assert isinstance(ranks.run("seq:2:L2:lag1", inputs)[0], PlanError)
        assert isinstance(ranks.run("seq:2:L2", {**inputs, "use_cache": True})[1], RequestError)
        assert [transport.counters.messages for transport in ranks.transports] == [0, 0]
