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


def exchange_over(transport):
    return Exchange(transport, Staging("cpu", transport.header_bytes), torch.float32, LONG_S)


@given(
    lag=st.integers(0, 1),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=9),
    requests=st.integers(1, 3),
)
def test_no_frame_is_refilled_while_it_is_being_sent(lag, sizes, requests):
    transport = FakeTransport()
    staging = Staging("cpu", 0)
    for request in range(requests):
        exchange = Exchange(transport, staging, torch.float32, LONG_S)
        for key, size in enumerate(sizes, start=1):
            payload = torch.full((1, size, 2), float(100 * request + key))
            exchange.post(key, payload, [1], {1: (1, size, 2)})
            if key - lag >= 1:
                exchange.collect(key - lag)
        exchange.finish()
    # The fake compares every frame with what was posted, when its peer reads it at last.
    assert all(handle.arrived and handle.sent for handle in transport.handles)
    assert len(transport.handles) == requests * len(sizes)


def test_collecting_waits_for_the_peers_frames_only():
    transport = FakeTransport()
    exchange = exchange_over(transport)
    for key in (1, 2, 3):
        exchange.post(key, torch.ones(1, 2, 2), [1], {1: (1, 2, 2)})
        exchange.collect(key)
    assert [handle.sent for handle in transport.handles] == [False] * 3
    exchange.post(4, torch.ones(1, 2, 2), [1], {1: (1, 2, 2)})  # fills the frame of the first
    assert [handle.sent for handle in transport.handles] == [True, False, False, False]


def test_a_slow_reader_gets_every_frame_as_it_was_posted():
    store = serve_store(HOST, 0, LONG_S)
    keys, elements = range(1, 9), 500_000
    three_posted = threading.Event()

    def join(rank):
        own = epoch_store(connect_store(HOST, store.port, LONG_S), 0)
        return GlooTransport(own, rank, 2, LONG_S, HOST)

    def send(transport):
        exchange = exchange_over(transport)
        for key in keys:
            exchange.post(key, torch.full((1, elements, 1), float(key)), [1], {})
            if key == 3:
                three_posted.set()
        exchange.finish()

    def read(transport):
        assert three_posted.wait(LONG_S)
        seen = []
        for _ in keys:
            buffer = torch.zeros(4 * elements, dtype=torch.uint8)
            handle = transport.post(torch.empty(0, dtype=torch.uint8), [], {0: buffer})
            handle.wait(LONG_S)
            handle.wait_sent(LONG_S)
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
