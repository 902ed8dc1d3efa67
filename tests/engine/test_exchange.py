"""Frames go out while the node computes on, and no frame is refilled before it is out."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.fakes import FakeTransport

from prism.engine.exchange import Exchange
from prism.transport.gloo import GlooTransport, connect_store, epoch_store, serve_store
from prism.transport.staging import Staging

HOST = "127.0.0.1"
LONG_S = 30.0


def exchange_over(transport, keys):
    staging = Staging("cpu", transport.header_bytes)
    return Exchange(transport, staging, torch.float32, LONG_S, keys)


@given(
    lag=st.integers(0, 1),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=9),
    requests=st.integers(1, 3),
)
def test_no_frame_is_refilled_while_it_is_being_sent(lag, sizes, requests):
    transport = FakeTransport()
    staging = Staging("cpu", 0)
    for request in range(requests):
        exchange = Exchange(transport, staging, torch.float32, LONG_S, len(sizes))
        exchange.expect(0, {1: (1, sizes[0], 2)})
        for key, size in enumerate(sizes):
            payload = torch.full((1, size, 2), float(100 * request + key))
            exchange.send(key, payload, [1])
            if key + 1 < len(sizes):
                exchange.expect(key + 1, {1: (1, sizes[key + 1], 2)})
            if key >= lag:
                exchange.collect(key - lag, payload)
        exchange.finish()
    assert all(handle.over for handle in transport.received)
    # At most one frame a slot is still on its way out. The fake compares every frame with what
    # was sent, when its peer reads it at last.
    leaving = [handle for handle in transport.sent if not handle.over]
    assert len(leaving) <= min(3, len(sizes))
    for handle in leaving:
        handle.wait(LONG_S)
    for handles in (transport.sent, transport.received):
        # Numbers go on from request to request, so that no two exchanges share one.
        assert [handle.number for handle in handles] == list(range(requests * len(sizes)))


def test_collecting_waits_for_the_peers_frames_only():
    transport = FakeTransport()
    exchange = exchange_over(transport, keys=4)
    like = torch.ones(1, 2, 2)
    for key in (0, 1, 2):
        exchange.expect(key, {1: (1, 2, 2)})
        exchange.send(key, like, [1])
        exchange.collect(key, like)
    assert [handle.over for handle in transport.sent] == [False] * 3
    exchange.send(3, like, [1])  # fills the frame of the first
    assert [handle.over for handle in transport.sent] == [True, False, False, False]


def test_a_request_ends_though_nobody_reads_its_last_frames():
    transport = FakeTransport()
    exchange = exchange_over(transport, keys=2)
    like = torch.ones(1, 2, 2)
    exchange.expect(0, {1: (1, 2, 2)})
    for key in (0, 1):
        exchange.send(key, like, [1])
    exchange.finish()
    assert [handle.over for handle in transport.received] == [True]
    assert [handle.over for handle in transport.sent] == [False, False]


def test_peers_may_be_sent_different_rows_under_one_key():
    transport = FakeTransport(size=3)
    exchange = exchange_over(transport, keys=1)
    for peer in (1, 2):
        exchange.send(0, torch.full((1, 3, 2), float(peer)), [peer])
    exchange.finish()
    sent = [handle.posted.view(torch.float32).unique().tolist() for handle in transport.sent]
    assert sent == [[1.0], [2.0]]


def test_a_slow_reader_gets_every_frame_as_it_was_posted():
    store = serve_store(HOST, 0, LONG_S)
    keys, elements = range(8), 500_000
    three_posted = threading.Event()

    def join(rank):
        own = epoch_store(connect_store(HOST, store.port, LONG_S), 0)
        return GlooTransport(own, rank, 2, LONG_S, HOST)

    def send(transport):
        exchange = exchange_over(transport, len(keys))
        for key in keys:
            exchange.send(key, torch.full((1, elements, 1), float(key)), [1])
            if key == 2:
                three_posted.set()
        exchange.finish()

    def read(transport):
        assert three_posted.wait(LONG_S)
        seen = []
        for _ in keys:
            buffer = torch.zeros(4 * elements, dtype=torch.uint8)
            transport.receive(transport.take_numbers(1), {0: buffer}).wait(LONG_S)
            seen.append(buffer.view(torch.float32).unique().tolist())
        return seen

    with ThreadPoolExecutor(2) as pool:
        transports = list(pool.map(join, (0, 1)))
        sending = pool.submit(send, transports[0])
        reading = pool.submit(read, transports[1])
        sending.result()
        assert reading.result() == [[float(key)] for key in keys]
    for transport in transports:
        transport.close()
        assert transport.closed
