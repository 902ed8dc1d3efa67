"""What reads inputs beside the event loop."""

import asyncio
import threading
from functools import partial

import pytest

from prism.server.errors import Busy
from prism.server.threads import Threads


def test_results_and_errors_come_back():
    async def run():
        threads = Threads()
        assert await threads.run(lambda: 3) == 3
        with pytest.raises(KeyError):
            await threads.run(partial({}.__getitem__, "a"))

    asyncio.run(run())


def test_more_than_may_wait_is_refused_and_what_waits_is_done():
    async def run():
        go = threading.Event()
        threads = Threads(count=1, most_waiting=2)
        waiting = [asyncio.ensure_future(threads.run(go.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy) as refused:
            await threads.run(go.wait)
        assert refused.value.headers["Retry-After"] == "1"
        go.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await threads.run(lambda: 1) == 1

    asyncio.run(run())
