"""One batch, one plan: what helpers leave out, what is recorded, what failures leave behind."""

import threading
from contextlib import contextmanager

import pytest
import torch
from tests.engine.fakes import Clock, FakeTransport
from tests.engine.ranks import Ranks
from tests.families import BLOCKS, BY_NAME, PARTS, TOKENS, assert_equal_outputs

from prism.engine.engine import Engine, Execution
from prism.errors import (
    Cancelled,
    ClusterError,
    DeadlineExceeded,
    ModelFailed,
    NodeFailed,
    PeerLost,
    PrismError,
)
from prism.models.backends import BACKENDS
from prism.models.load import adopt
from prism.plan import Plan


@contextmanager
def ranks_of(name, size=3, model=None, **family):
    ranks = Ranks(size, model or BY_NAME[name].model(), **family)
    try:
        yield ranks
    finally:
        ranks.close()


def blocks_run(ranks, plan, case):
    """Return how many rows every block of every rank's model made, for each block that ended."""
    seen = [[] for _ in ranks.engines]
    hooks = []
    for rank, engine in enumerate(ranks.engines):
        for block in engine.loaded.model.get_submodule(case.layout.blocks):
            hook = block.register_forward_hook(
                lambda _, args, output, rank=rank: seen[rank].append(output.shape[1])
            )
            hooks.append(hook)
    executions = ranks.run(plan, case.inputs())
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
        executions, rows = blocks_run(ranks, plan, case)
    parts = PARTS[TOKENS]["3/1/2" if "shares" in plan else ""]
    # The last block asks with the class token alone, on rank 0 alone.
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


def test_a_record_books_every_second_where_it_was_spent(monkeypatch):
    """Blocks take 1 s, waiting for peers 10 s, for own sends 0.25 s: on a clock of our own.

    Own sends are waited for when their frames are filled again, by the next request.
    """
    clock = Clock()
    monkeypatch.setattr("prism.engine.engine.time", clock)
    case = BY_NAME["ViTModel"]
    engine = Engine(adopt(case.model()), "here")
    for block in engine.loaded.model.layers:
        block.register_forward_pre_hook(lambda *_: clock.pass_s(1.0))
    transport = FakeTransport(clock=clock, arrival_s=10.0, sent_s=0.25)
    for sent_s in (0.0, (BLOCKS - 1) * 0.25):
        record = engine.run(
            case.inputs(), Plan.parse("seq:2:L2"), length=TOKENS, transport=transport
        ).record
        assert (record.node, record.batch, record.length) == ("here", 2, TOKENS)
        assert record.compute_s == pytest.approx(BLOCKS)
        # Block 0 needs nobody; after the last block the others' rows are gathered.
        assert record.comm_s == pytest.approx((BLOCKS - 1) * 10.0 + sent_s)
        assert record.output_s == pytest.approx(10.0)
        assert record.total_s == pytest.approx(BLOCKS * (1.0 + 10.0) + sent_s)
        assert (record.staging_s, record.messages) == (0.0, BLOCKS - 1)
    local = engine.run(case.inputs(), Plan.parse("local"), length=TOKENS).record
    assert local.compute_s == local.total_s == pytest.approx(BLOCKS)


def test_local_sends_nothing_and_is_plain_transformers():
    case = BY_NAME["GPT2LMHeadModel"]
    model, inputs = case.model(), case.inputs(padding=3)
    execution = Engine(adopt(model), "here").run(inputs, Plan.parse("local"), length=TOKENS)
    with torch.no_grad():
        assert torch.equal(execution.output.logits, model(**inputs).logits)
    record = execution.record
    assert (record.node, record.bytes_sent, record.messages) == ("here", 0, 0)
    assert (record.comm_s, record.output_s) == (0, 0)
    assert record.compute_s == record.total_s
    # Prefill only: no cache is kept.
    assert execution.output.past_key_values is None


def plain(name, inputs):
    with torch.no_grad():
        return BY_NAME[name].model()(**inputs)


def test_a_peer_that_never_posts_ends_in_a_deadline_and_a_plain_model():
    inputs = BY_NAME["ViTModel"].inputs()
    with ranks_of("ViTModel") as ranks:
        failed = ranks.run("seq:3:full", inputs, ranks=(0, 1), timeout_s=0.3)
        assert any(isinstance(error, DeadlineExceeded) for error in failed)
        assert all(isinstance(error, ClusterError) for error in failed[:2])
        assert [transport.closed for transport in ranks.transports] == [True, True, False]
        local = ranks.engines[0].run(inputs, Plan.parse("local"), length=TOKENS).output
        model = ranks.engines[0].loaded.model
    assert torch.equal(local[0], plain("ViTModel", inputs)[0])
    # A closed engine leaves the model as it was.
    assert not any(module._forward_pre_hooks for module in model.modules())


def failing_block(engine, index, error):
    def fail(*_):
        raise error

    return engine.loaded.model.layers[index].register_forward_pre_hook(fail)


def test_a_model_that_fails_after_the_last_exchange_stays_in_step():
    name, plan = "ViTForImageClassification", "seq:3:L2"
    inputs = BY_NAME[name].inputs()
    with ranks_of(name) as ranks:
        for _ in range(2):
            # The loss is computed by rank 0 alone, when everybody else is through.
            failed = ranks.run(plan, {**inputs, "labels": torch.tensor([0, 7])})
            assert isinstance(failed[0], ModelFailed)
            assert str(failed[0]) == "IndexError: Target 7 is out of bounds."
            assert [execution.output for execution in failed[1:]] == [None, None]
            assert not any(transport.closed for transport in ranks.transports)
            full = ranks.run("seq:3:full", inputs)
            assert_equal_outputs(full[0].output, plain(name, inputs))


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_model_that_fails_amid_a_pass_tells_its_peers_at_once(rank, block):
    inputs = BY_NAME["ViTModel"].inputs()
    with ranks_of("ViTModel") as ranks:
        hook = failing_block(ranks.engines[rank], block, ValueError("block fails"))
        failed = ranks.run("seq:3:full", inputs)
        assert isinstance(failed[rank], ModelFailed)
        assert str(failed[rank]) == "ValueError: block fails"
        # Lost, not timed out. A helper that had sent all it has is through already.
        others = [failed[other] for other in (0, 1, 2) if other != rank]
        assert all(isinstance(each, (PeerLost, Execution)) for each in others), others
        assert isinstance(failed[0], ClusterError) or rank == 0
        assert ranks.transports[rank].closed
        hook.remove()
        ranks.regroup()
        again = ranks.run("seq:3:full", inputs)
    assert_equal_outputs(again[0].output, plain("ViTModel", inputs))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("x"), ModelFailed),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ModelFailed),
        (KeyError("x"), ModelFailed),
        (MemoryError(), NodeFailed),
        (OSError("disk"), NodeFailed),
        (torch.OutOfMemoryError("CUDA out of memory"), NodeFailed),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), NodeFailed),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), NodeFailed),
        (PeerLost("rank 1"), PeerLost),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)[:24]),
)
def test_the_models_own_errors_are_told_from_the_machines(error, expected):
    case = BY_NAME["ViTModel"]
    engine = Engine(adopt(case.model()))
    failing_block(engine, 1, error)
    with pytest.raises(PrismError) as caught:
        engine.run(case.inputs(), Plan(), length=TOKENS)
    assert type(caught.value) is expected
    if expected is not PeerLost:
        assert str(caught.value) == f"{type(error).__name__}: {error}"
        assert caught.value.__cause__ is error


def cancelling(engine):
    """Return a flag that is set as soon as the engine's first block has run, and all blocks run."""
    flag, seen = threading.Event(), []

    def ran(index):
        seen.append(index)
        flag.set()

    for index, block in enumerate(engine.loaded.model.layers):
        block.register_forward_hook(lambda *_, index=index: ran(index))
    return flag, seen


@pytest.mark.parametrize("plan", ["local", "batch:2"])
def test_work_that_nobody_waits_for_ends_before_the_next_block(plan):
    case = BY_NAME["ViTModel"]
    inputs = case.inputs()
    engine = Engine(adopt(case.model()))
    flag, seen = cancelling(engine)
    with pytest.raises(Cancelled, match="given up; it ended before block 1"):
        engine.run(inputs, Plan.parse(plan), length=TOKENS, should_cancel=flag.is_set)
    assert seen == [0]
    output = engine.run(inputs, Plan.parse(plan), length=TOKENS).output
    assert torch.equal(output[0], plain("ViTModel", inputs)[0])


@pytest.mark.parametrize("plan", ["seq:3:full", "seq:3:L2:lag1"])
def test_a_cancelled_sequence_ends_on_all_ranks_and_the_next_is_right(plan):
    inputs = BY_NAME["ViTModel"].inputs()
    with ranks_of("ViTModel") as ranks:
        flag, seen = cancelling(ranks.engines[0])
        ended = ranks.run(plan, inputs, should_cancel=flag.is_set)
        assert isinstance(ended[0], Cancelled) and seen == [0]
        assert all(isinstance(error, (Cancelled, PeerLost)) for error in ended[1:])
        assert all(transport.closed for transport in ranks.transports)
        ranks.regroup()
        again = ranks.run("seq:3:full", inputs)
    assert_equal_outputs(again[0].output, plain("ViTModel", inputs))


@pytest.mark.parametrize("plan", ["seq:3:full:shares=3/1/2", "seq:3:L2", "seq:3:L2:lag1"])
@pytest.mark.parametrize("frames", [0, 11])
def test_a_mask_over_mel_frames_hides_no_token(plan, frames):
    case = BY_NAME["WhisperEncoder"]
    inputs = case.inputs()
    mask = torch.ones(2, 2 * case.tokens, dtype=torch.long)
    mask[1, frames:] = 0
    with ranks_of(case.name) as ranks:
        expected = ranks.run(plan, inputs)[0].output
        masked = ranks.run(plan, {**inputs, "attention_mask": mask})[0].output
    assert torch.equal(masked[0], expected[0])


def test_the_model_is_called_through_the_backend(monkeypatch):
    case = BY_NAME["ViTModel"]
    calls = []

    class Counting:
        name = "counting"
        hooked = True

        def obstacle(self, loaded):
            return ""

        def prepare(self, loaded):
            def call(**inputs):
                calls.append(sorted(inputs))
                return loaded.model(**inputs)

            return call

    monkeypatch.setitem(BACKENDS, Counting.name, Counting())
    engine = Engine(adopt(case.model()), backend=Counting.name)
    calls.clear()  # it was tried beside eager
    engine.run(case.inputs(), Plan(), length=TOKENS)
    assert (engine.backend, calls) == ("counting", [["pixel_values"]])
    assert Engine(adopt(case.model())).backend == "eager"
    assert all(name == backend.name for name, backend in BACKENDS.items())
