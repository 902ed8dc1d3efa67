"""Requests of many clients on two real nodes: joined, cut back, dropped, refused, drained."""

import asyncio
from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch
import transformers as hf
from tests.machines import alone, close, pixels, tiny_vit, until
from tests.planner.clusters import make_map

import prism
from prism.errors import Cancelled, DeadlineExceeded, ModelFailed, PlanError, RequestError
from prism.output_form import OutputForm
from prism.server.batching import Batcher
from prism.server.errors import Busy
from prism.server.metrics import Metrics
from prism.server.served import Served
from prism.server.work import Wish

FIRST = Wish(plan="local@node0")


@pytest.fixture(scope="module")
def nodes():
    with prism.local_cluster(nodes=2, threads=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def vit():
    return tiny_vit()


@pytest.fixture(scope="module")
def served(nodes, vit):
    model = nodes.load(vit)
    return Served("vit", model, model.info)


@pytest.fixture(scope="module")
def text():
    torch.manual_seed(0)
    config = hf.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=50,
        type_vocab_size=2,
    )
    return hf.BertModel(config).eval()


@pytest.fixture(scope="module")
def served_text(nodes, text):
    model = nodes.load(text)
    return Served("bert", model, model.info)


@pytest.fixture(scope="module")
def slow(nodes):
    """A model whose requests last long enough to be met while they run."""
    model = nodes.load(tiny_vit(seed=3, blocks=60))
    return Served("slow", model, model.info)


def ids(rows, length):
    generator = torch.Generator().manual_seed(length)
    return {"input_ids": torch.randint(3, 50, (rows, length), generator=generator)}


def in_loop(served, work, **options):
    """Run `work(batcher)` on an event loop of its own."""

    async def run():
        batcher = Batcher(served, Metrics(), **options)
        try:
            return await work(batcher)
        finally:
            await batcher.drain(60)

    return asyncio.run(run())


async def occupied(batcher, wish=FIRST, rows=300):
    """Start a request that keeps its node busy; return its task once it runs."""
    task = asyncio.create_task(batcher.infer({"pixel_values": pixels(rows)}, wish))
    scheduler = batcher._served.model.condition
    assert await asyncio.to_thread(until, lambda: "node0" not in scheduler.idle or task.done())
    return task


async def all_of(batcher, requests, wish=FIRST):
    """Put requests in, all before any of them can run; return their tasks."""
    tasks = [asyncio.create_task(batcher.infer(inputs, wish)) for inputs in requests]
    await asyncio.sleep(0)
    return tasks


def test_a_lone_request_runs_at_once_and_by_itself(served, vit):
    async def work(batcher):
        return await batcher.infer({"pixel_values": pixels(2)}, Wish())

    answered = in_loop(served, work)
    assert close(answered.output.logits, alone(vit, pixel_values=pixels(2)).logits)
    assert (answered.rows, answered.decision, answered.record.outcome) == (2, None, "ok")
    assert 0 <= answered.queue_s < answered.record.total_s


def test_what_waits_for_a_node_is_joined_and_each_gets_its_rows(slow):
    async def work(batcher):
        busy = await occupied(batcher)
        inputs = [{"pixel_values": pixels(1 + turn % 3, seed=turn)} for turn in range(12)]
        tasks = await all_of(batcher, inputs)
        assert batcher.waiting == 12
        answers = await asyncio.gather(*tasks)
        await busy
        return inputs, answers

    inputs, answers = in_loop(slow, work)
    plain = tiny_vit(seed=3, blocks=60)
    for each, answered in zip(inputs, answers, strict=True):
        assert close(answered.output.logits, alone(plain, **each).logits)
        assert answered.rows == 24


def test_a_batch_has_no_more_rows_than_it_may(slow):
    async def work(batcher):
        busy = await occupied(batcher)
        tasks = await all_of(batcher, [{"pixel_values": pixels(2, seed=turn)} for turn in range(5)])
        answers = await asyncio.gather(*tasks)
        await busy
        return [answered.rows for answered in answers]

    assert in_loop(slow, work, most_rows=4) == [4, 4, 4, 4, 2]


@pytest.mark.parametrize("form", ["full", "pooled", "pooled:lasttoken"])
def test_texts_of_one_bucket_are_joined_and_lose_their_padding(slow, served_text, text, form):
    wish = Wish(plan="seq:2:full", output=OutputForm.parse(form))
    lengths = (9, 12, 16, 40)

    async def work(batcher):
        busy = await occupied(Batcher(slow, Metrics()))
        # One takes the plan's turn; the others wait for its end, which waits for the node.
        first = await all_of(batcher, [ids(1, 5)], wish)
        tasks = await all_of(batcher, [ids(2, length) for length in lengths], wish)
        answers = await asyncio.gather(*tasks)
        await asyncio.gather(busy, *first)
        return answers

    answers = in_loop(served_text, work)
    assert [answered.rows for answered in answers] == [6, 6, 6, 2]
    for length, answered in zip(lengths, answers, strict=True):
        hidden = alone(text, **ids(2, length)).last_hidden_state
        if form == "full":
            assert close(answered.output.last_hidden_state, hidden)
        else:
            wanted = hidden[:, -1] if "last" in form else hidden.mean(1)
            assert close(answered.output, wanted)


def test_other_plans_objectives_and_forms_are_not_joined(slow):
    wishes = (
        Wish(plan="local@node0", output=OutputForm("logits")),
        Wish(plan="local@node0"),
        Wish(plan="batch:2"),
    )

    async def work(batcher):
        busy = await occupied(batcher)
        tasks = [
            asyncio.create_task(batcher.infer({"pixel_values": pixels(2)}, wish))
            for wish in wishes
            for _ in range(2)
        ]
        answers = await asyncio.gather(*tasks)
        await busy
        return answers

    answers = in_loop(slow, work)
    assert [str(each.record.plan.strategy) for each in answers[::2]] == ["local", "local", "batch"]
    # Nobody else holds the first batch:2 back, so that it is alone.
    assert [each.rows for each in answers] == [4, 4, 4, 4, 2, 2]


def test_a_request_that_is_wrong_is_refused_before_it_waits(served):
    async def work(batcher):
        with pytest.raises(RequestError, match="pixel_values must be"):
            await batcher.infer({"pixel_values": torch.rand(1, 3, 8, 8)}, Wish())
        with pytest.raises(RequestError, match="takes no input named"):
            await batcher.infer({"pixel_values": pixels(1), "wrong": pixels(1)}, Wish())
        with pytest.raises(PlanError):
            await batcher.infer({"pixel_values": pixels(1)}, Wish(plan="nonsense"))
        with pytest.raises(PlanError):
            await batcher.infer({"pixel_values": pixels(1)}, Wish(plan="seq:7:full"))
        with pytest.raises(PlanError, match="needs a performance map"):
            await batcher.infer({"pixel_values": pixels(1)}, Wish(plan="auto"))
        with pytest.raises(RequestError, match="deadline"):
            await batcher.infer({"pixel_values": pixels(1)}, Wish(deadline_s=float("nan")))
        assert batcher.waiting == 0

    in_loop(served, work)


def test_the_rows_of_one_that_fails_do_not_spoil_the_others(slow, served_text, text):
    def typed(length, kind):
        inputs = ids(1, length)
        return {**inputs, "token_type_ids": torch.full_like(inputs["input_ids"], kind)}

    async def work(batcher):
        wish = Wish(plan="local@node0")
        busy = await occupied(Batcher(slow, Metrics()))
        first = await all_of(batcher, [ids(1, 5)], wish)
        # There are two kinds of tokens, and nobody checks them before the model does.
        requests = [typed(9, 0), typed(9, 77), typed(11, 1)]
        tasks = await all_of(batcher, requests, wish)
        good, bad, other = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(busy, *first)
        exposition = batcher._metrics.exposition().decode()
        assert 'prism_batches_repeated_total{model="bert"} 1.0' in exposition
        assert 'prism_batches_failed_total{kind="ModelFailed",model="bert"} 1.0' in exposition
        assert isinstance(bad, ModelFailed)
        for answered, inputs in ((good, requests[0]), (other, requests[2])):
            expected = alone(text, **inputs).last_hidden_state
            assert close(answered.output.last_hidden_state, expected)
        assert not batcher._apart

    in_loop(served_text, work)


def test_inputs_that_fail_together_and_work_alone_are_not_joined_again(nodes, slow):
    torch.manual_seed(0)
    config = hf.GPT2Config(
        n_embd=32, n_layer=2, n_head=2, vocab_size=50, num_labels=2, pad_token_id=0
    )
    model = nodes.load(hf.GPT2ForSequenceClassification(config).eval())
    served = Served("gpt", model, model.info)

    async def work(batcher):
        busy = await occupied(Batcher(slow, Metrics()))
        first = await all_of(batcher, [ids(1, 40)], FIRST)
        tasks = await all_of(batcher, [ids(1, 9), ids(1, 12)], FIRST)
        answers = await asyncio.gather(*tasks)
        await asyncio.gather(busy, *first)
        return [answered.rows for answered in answers], [each.output.logits for each in answers]

    rows, logits = in_loop(served, work)
    assert rows == [2, 2]
    assert all(each.shape == (1, 2) for each in logits)
    model.unload()


def test_a_full_queue_says_when_to_come_back(slow):
    async def work(batcher):
        busy = await occupied(batcher)
        tasks = await all_of(batcher, [{"pixel_values": pixels(2)} for _ in range(4)])
        with pytest.raises(Busy) as refused:
            await batcher.infer({"pixel_values": pixels(1)}, FIRST)
        assert 1 <= refused.value.retry_after_s <= 60
        await asyncio.gather(busy, *tasks)
        answered = await batcher.infer({"pixel_values": pixels(1)}, FIRST)
        assert answered.record.outcome == "ok"

    in_loop(slow, work, queue_rows=8)


def test_one_out_of_time_in_the_queue_never_runs(slow):
    async def work(batcher):
        busy = await occupied(batcher)
        with pytest.raises(DeadlineExceeded, match="not answered within"):
            await batcher.infer({"pixel_values": pixels(1)}, replace(FIRST, deadline_s=0.05))
        assert batcher.waiting == 0 and not busy.done()
        await busy

    in_loop(slow, work)


def test_one_given_up_in_a_batch_leaves_the_others_alone(slow):
    async def work(batcher):
        busy = await occupied(batcher)
        tasks = await all_of(batcher, [{"pixel_values": pixels(100)}, {"pixel_values": pixels(2)}])
        await busy
        assert batcher.waiting == 0  # both are being answered
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        answered = await tasks[1]
        assert (answered.rows, answered.record.outcome) == (102, "ok")

    in_loop(slow, work, most_rows=400)


@pytest.mark.parametrize("waits", [True, False])
def test_cancelling_the_task_cancels_the_work(slow, waits):
    async def work(batcher):
        busy = await occupied(batcher)
        victim = busy
        if waits:
            (victim,) = await all_of(batcher, [{"pixel_values": pixels(2)}])
        victim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await victim
        assert batcher.waiting == 0
        if not waits:
            idle = slow.model.condition
            assert await asyncio.to_thread(until, lambda: "node0" in idle.idle)
        answered = await batcher.infer({"pixel_values": pixels(1)}, FIRST)
        assert answered.record.outcome == "ok"

    in_loop(slow, work)


def test_draining_answers_what_was_accepted_and_takes_no_more(slow):
    async def work(batcher):
        busy = await occupied(batcher)
        tasks = await all_of(batcher, [{"pixel_values": pixels(2)}] * 3)
        draining = asyncio.create_task(batcher.drain(60))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="stopping"):
            await batcher.infer({"pixel_values": pixels(1)}, Wish())
        await draining
        assert batcher.waiting == 0
        return await asyncio.gather(busy, *tasks)

    assert [each.record.outcome for each in in_loop(slow, work)] == ["ok"] * 4


def test_what_is_not_answered_in_the_drain_time_is_given_up(slow):
    async def work(batcher):
        busy = await occupied(batcher)
        tasks = await all_of(batcher, [{"pixel_values": pixels(2)}])
        await batcher.drain(0.0)
        for task in (busy, *tasks):
            with pytest.raises(Cancelled, match="send it again"):
                await task

    in_loop(slow, work)
    assert until(lambda: "node0" in slow.model.condition.idle)


def test_under_load_whole_batches_go_to_every_node(slow):
    perf = make_map(("batch:2", "seq:2:full"))
    identity = slow.model.identity()
    slow.model.use_map(replace(perf, model_hash=identity.model_hash, nodes=identity.nodes))

    async def work(batcher):
        lone = await batcher.infer({"pixel_values": pixels(16)}, Wish())
        requests = [{"pixel_values": pixels(1, seed=turn)} for turn in range(120)]
        tasks = await all_of(batcher, requests, Wish())
        return lone, await asyncio.gather(*tasks)

    for _ in range(4):  # a node that a busy machine holds up is passed over for a while
        lone, answers = in_loop(slow, work, most_rows=16)
        alone_on = {each.record.node for each in answers if each.record.plan.size == 1}
        if alone_on == {"node0", "node1"}:
            break
    assert str(lone.decision.choice) != "local" and len(lone.decision.nodes) == 2
    assert alone_on == {"node0", "node1"}
    assert max(each.rows for each in answers) == 16
    whole = {id(each.record): each for each in answers if each.record.plan.size == 1}
    assert len(whole) >= 6


def test_nodes_that_the_planner_passes_over_do_not_empty_the_queue(slow):
    perf = make_map(("batch:2",))
    identity = slow.model.identity()
    perf = replace(perf, model_hash=identity.model_hash, nodes=identity.nodes)
    slow.model.use_map(perf, allow=["local"])

    async def work(batcher):
        requests = [{"pixel_values": pixels(1, seed=turn)} for turn in range(60)]
        return await asyncio.gather(*await all_of(batcher, requests, Wish()))

    answers = in_loop(slow, work, most_rows=16)
    assert {each.record.node for each in answers} == {"node0"}
    # One runs and one waits while the planner is found out; then they are joined.
    assert sorted(each.rows for each in answers)[-32:] == [16] * 32


def test_every_request_ends_even_if_handing_in_breaks(served, monkeypatch):
    def broken(*arguments, **options) -> Future:
        raise RuntimeError("a mistake of the server")

    async def work(batcher):
        monkeypatch.setattr(served.model, "submit", broken)
        with pytest.raises(RuntimeError, match="a mistake"):
            await batcher.infer({"pixel_values": pixels(1)}, Wish())

    in_loop(served, work)
