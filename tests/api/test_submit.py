"""Requests as futures: several at once, given up, and out of time; on three real nodes."""

import asyncio
import threading
from concurrent.futures import CancelledError, wait

import pytest
import torch
from tests.machines import alone, close, pixels, tiny_vit, until

import prism
from prism.errors import Cancelled, ClusterError, ConfigError, DeadlineExceeded, ModelFailed

PLANS = (
    *("local@node0", "local@node1", "batch:2", "seq:3:full"),
    *("local@node2", "seq:node2+node1:full"),
)


@pytest.fixture(scope="module")
def slow(cluster):
    """A model whose requests last long enough to be met while they run."""
    plain = tiny_vit(seed=3, blocks=60)
    return plain, cluster.load(plain)


def busy(slow, plan="local@node0", batch=400):
    """Start a request that occupies its nodes for a while."""
    _, model = slow
    future = model.submit(plan=plan, pixel_values=pixels(batch))
    assert until(lambda: model._live.scheduler.occupied("node0") or future.done())
    return future


def test_a_response_has_output_record_and_decision(model, vit):
    response = model.submit(plan="seq:3:full", pixel_values=pixels(2)).result(30)
    assert close(response.output.logits, alone(vit, pixel_values=pixels(2)).logits)
    assert (response.record.outcome, str(response.record.plan)) == ("ok", "seq:3:full")
    assert response.decision is None
    assert model.last_record is response.record


def test_many_at_once_each_get_their_own_answer(model, vit):
    inputs = [pixels(1 + turn % 4, seed=turn) for turn in range(60)]
    futures = [
        model.submit(plan=PLANS[turn % len(PLANS)], pixel_values=x) for turn, x in enumerate(inputs)
    ]
    assert not wait(futures, 60).not_done
    for x, future in zip(inputs, futures, strict=True):
        response = future.result()
        assert close(response.output.logits, alone(vit, pixel_values=x).logits)
        assert response.record.outcome == "ok"
        assert 0 <= response.record.queue_s <= response.record.total_s


def test_a_request_handed_in_is_part_of_the_load_at_once(slow, model):
    condition = model.condition
    assert until(lambda: condition.idle == ("node0", "node1", "node2"))
    _, slow_model = slow
    future = slow_model.submit(plan="batch:node1+node2", pixel_values=pixels(200))
    assert future.nodes == ("node1", "node2")
    assert condition.idle == ("node0",) and set(condition.load.free_in_s) == {"node1", "node2"}
    assert condition.states == dict.fromkeys(("node0", "node1", "node2"), "ready")
    future.result(60)


def test_requests_for_other_nodes_do_not_wait(slow, model):
    future = busy(slow)
    response = model.submit(plan="batch:node1+node2", pixel_values=pixels(2)).result(30)
    assert not future.done()
    assert response.record.outcome == "ok"
    assert future.result(60).record.outcome == "ok"


def test_one_given_up_in_the_line_never_runs(slow, model):
    future = busy(slow)
    waiting = model.submit(plan="seq:3:full", pixel_values=pixels(2))
    behind = model.submit(plan="local@node1", pixel_values=pixels(1))
    assert waiting.cancel()
    with pytest.raises(Cancelled):
        waiting.result(10)
    assert waiting.cancelled() and not waiting.cancel()
    assert behind.result(10).record.outcome == "ok" and not future.done()
    future.result(60)


@pytest.mark.parametrize("plan", ["local@node0", "batch:3", "seq:3:full"])
def test_one_given_up_while_it_runs_leaves_the_nodes_well(slow, plan):
    plain, model = slow
    future = busy(slow, plan)
    assert future.cancel()
    with pytest.raises(CancelledError):  # prism's own is one of these too
        future.result(30)
    x = pixels(2, seed=5)
    for again in (plan, "seq:3:full"):
        output = model(plan=again, pixel_values=x)
        assert close(output.logits, alone(plain, pixel_values=x).logits)
        assert model.last_record.outcome == "ok"


@pytest.mark.parametrize("plan", ["local@node0", "seq:3:full"])
def test_one_out_of_time_is_the_callers_error_and_teaches_nothing(slow, plan):
    plain, model = slow
    with pytest.raises(DeadlineExceeded, match=r"not answered within 0\.05 s"):
        model(plan=plan, deadline_s=0.05, pixel_values=pixels(400))
    x = pixels(2, seed=6)
    output = model(plan=plan, pixel_values=x)
    assert close(output.logits, alone(plain, pixel_values=x).logits)
    assert model.last_record.outcome == "ok"


def test_one_out_of_time_in_the_line(slow, model):
    future = busy(slow)
    with pytest.raises(DeadlineExceeded):
        model.submit(plan="local@node0", deadline_s=0.05, pixel_values=pixels(1)).result(10)
    assert not future.done()
    assert model.submit(plan="local@node0", deadline_s=60, pixel_values=pixels(1)).result(60)
    future.result(60)


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan")])
def test_a_deadline_that_is_no_time_is_refused(model, wrong):
    with pytest.raises(ConfigError, match="deadline_s"):
        model.submit(deadline_s=wrong, pixel_values=pixels(1))


def test_futures_work_with_asyncio(model, vit):
    async def ask():
        futures = [
            asyncio.wrap_future(model.submit(plan=plan, pixel_values=pixels(2))) for plan in PLANS
        ]
        return await asyncio.gather(*futures)

    expected = alone(vit, pixel_values=pixels(2)).logits
    assert all(close(response.output.logits, expected) for response in asyncio.run(ask()))


def test_the_models_own_error_is_raised_once_and_resets_nothing(model, vit):
    coordinator = model._live.coordinator
    model(plan="seq:3:full", pixel_values=pixels(3))
    formed = dict(coordinator._groups._formed)
    bad = {"pixel_values": pixels(3), "labels": torch.full((3,), 99)}
    for plan in ("local", "batch:3", "seq:3:full"):
        with pytest.raises(ModelFailed, match="IndexError: Target 99 is out of bounds"):
            model(plan=plan, **bad)
        assert dict(coordinator._groups._formed) == formed
        x = pixels(2)
        assert close(model(plan="seq:3:full", pixel_values=x)[0], alone(vit, pixel_values=x)[0])
        assert model.last_record.outcome == "ok"


def test_threads_share_a_model(model, vit):
    wrong = []

    def ask(seed):
        for turn in range(10):
            x = pixels(1 + turn % 3, seed=100 * seed + turn)
            output = model(plan=PLANS[(seed + turn) % len(PLANS)], pixel_values=x)
            if not close(output.logits, alone(vit, pixel_values=x).logits):
                wrong.append((seed, turn))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_an_unloaded_model_says_so_and_the_others_serve(cluster, model, vit):
    other = cluster.load(tiny_vit(seed=9))
    other(plan="seq:3:full", pixel_values=pixels(1))
    other.unload()
    other.unload()
    with pytest.raises(ClusterError, match="was unloaded; load it again"):
        other(pixel_values=pixels(1))
    assert close(model(pixel_values=pixels(1))[0], alone(vit, pixel_values=pixels(1))[0])


def test_loading_while_another_model_serves_disturbs_no_request(cluster, model, vit):
    stop, outcomes = threading.Event(), []

    def ask():
        x = pixels(2)
        while not stop.is_set():
            output = model(plan="seq:3:full", pixel_values=x)
            right = close(output.logits, alone(vit, pixel_values=x).logits)
            outcomes.append((right, model.last_record.outcome))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(2):
            cluster.load("random:vit-small").unload()
    finally:
        stop.set()
        thread.join(60)
    assert outcomes and set(outcomes) == {(True, "ok")}


def test_after_closing_requests_end_with_an_error():
    vit = tiny_vit(blocks=60)
    with prism.local_cluster(nodes=1, threads=1) as cluster:
        model = cluster.load(vit)
        futures = [model.submit(pixel_values=pixels(200)) for _ in range(4)]
    for future in futures:
        assert future.done() or isinstance(future.exception(30), ClusterError)
    with pytest.raises(ClusterError):
        model(pixel_values=pixels(1))
