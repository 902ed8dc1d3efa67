"""Control messages over an emulated link: what is delayed by how much, and in which order."""

import random
import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.emulation.clocks import Clock

from prism.emulation import delivery as module
from prism.emulation.delivery import ArrivalQueue
from prism.emulation.place import EmulatedLink
from prism.errors import ConfigError

NAMES = ("home", "near", "far")
KB = [b"{}", bytes(998)]  # with its JSON a thousand bytes


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(100.0)
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


@pytest.fixture
def link(tmp_path, clock):
    opened = EmulatedLink.open("8mbit,3ms", tmp_path / "medium", NAMES)
    yield opened
    opened.close()


def stamp(frames):
    return module._STAMP.unpack(frames[-1])[0]


class TestOutgoing:
    def test_a_stamp_follows_the_frames(self, link):
        frames = link.delivery().outgoing("near", [b"{}", b"payload"])
        assert frames[:-1] == [b"{}", b"payload"]
        assert len(frames[-1]) == 8

    def test_json_takes_the_latency_and_slips_in_between_large_messages(self, link):
        coordinator = link.delivery()
        assert stamp(coordinator.outgoing("near", KB)) == pytest.approx(100.004)
        assert stamp(coordinator.outgoing("near", KB)) == pytest.approx(100.005)
        for small in ([b"x" * 5000], [b"{}", b""], [b"{}", memoryview(b"")]):
            assert stamp(coordinator.outgoing("near", small)) == pytest.approx(100.003)
        assert stamp(coordinator.outgoing("near", KB)) == pytest.approx(100.006)

    def test_payloads_queue_for_the_air_with_other_senders_to_the_same_node(self, link):
        near, far, coordinator = link.delivery("near"), link.delivery("far"), link.delivery()
        assert stamp(near.outgoing("", KB)) == pytest.approx(100.004)
        assert stamp(far.outgoing("", KB)) == pytest.approx(100.005)  # the same downlink
        assert stamp(coordinator.outgoing("far", KB)) == pytest.approx(100.004)  # the other way

    def test_the_coordinator_and_the_node_on_its_device_are_in_one_place(self, link):
        big = [b"{}", bytes(10**6)]
        assert stamp(link.delivery().outgoing("home", big)) == 100.0
        assert stamp(link.delivery("home").outgoing("", big)) == 100.0
        assert stamp(link.delivery("near").outgoing("", KB)) == pytest.approx(
            100.004
        )  # air is free

    def test_who_is_not_on_the_link_is_not_delayed(self, link):
        assert stamp(link.delivery().outgoing("stranger", KB)) == 100.0
        with pytest.raises(ConfigError, match="'stranger' is not .* home, near, far"):
            link.delivery("stranger")

    def test_a_link_can_change_meanwhile(self, link):
        coordinator = link.delivery()
        link.reshape("800kbit,20ms")
        assert stamp(coordinator.outgoing("near", [b"{}"])) == pytest.approx(100.020)
        assert stamp(coordinator.outgoing("near", KB)) == pytest.approx(100.030)


class TestIncoming:
    def test_what_has_arrived_is_delivered_at_once_on_the_same_thread(self, link, clock):
        near = link.delivery("near")
        frames = link.delivery().outgoing("near", KB)
        clock.now_s = stamp(frames)
        got = []
        near.incoming("c", frames, lambda rest: got.append((rest, threading.current_thread())))
        assert got == [(KB, threading.current_thread())]

    @pytest.mark.parametrize("last", [float("nan"), float("inf"), -float("inf")])
    def test_a_stamp_that_is_no_time_delays_nothing(self, link, last):
        got = []
        link.delivery().incoming("x", [b"{}", module._STAMP.pack(last)], got.append)
        assert got == [[b"{}"]]

    @pytest.mark.parametrize("frames", [[], [b"{}"], [b"no stamp behind it"]])
    def test_what_has_no_stamp_is_passed_on_as_it_is(self, link, frames):
        got = []
        link.delivery().incoming("x", frames, got.append)
        assert got == [frames]

    def test_what_is_under_way_is_delivered_in_order_by_the_timer(self, tmp_path):
        # On the real clock: the first is the last to arrive by its stamp.
        link = EmulatedLink.open("1ms", tmp_path / "medium", NAMES)
        near, got, all_here = link.delivery("near"), [], threading.Event()
        now_s = module.time.monotonic()

        def take(rest):
            got.append((rest[0], module.time.monotonic() - now_s))
            if len(got) == 3:
                all_here.set()

        for word, delay_s, sender in ((b"1", 0.2, "c"), (b"2", -1.0, "c"), (b"3", 0.1, "other")):
            near.incoming(sender, [word, module._STAMP.pack(now_s + delay_s)], take)
        assert all_here.wait(20.0)
        assert [word for word, _ in got] == [b"3", b"1", b"2"]
        assert [at_s >= due_s for (_, at_s), due_s in zip(got, (0.1, 0.2, 0.2), strict=True)] == [
            True
        ] * 3
        near.close()
        near.close()
        link.close()

    def test_nothing_is_delivered_once_closed(self, link, clock):
        near, got = link.delivery("near"), []
        near.incoming("c", [b"1", module._STAMP.pack(clock.now_s + 1e6)], got.append)
        near.close()
        near.incoming("c", [b"2", module._STAMP.pack(0.0)], got.append)
        assert got == []


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0.0, 10.0), st.floats(0.0, 2.0)), max_size=30
    ),
    st.integers(0, 2**16),
)
def test_no_message_is_early_or_overtakes_another_of_its_sender(sent, seed):
    """Messages of (sender, time under way, pause before the next), popped at random moments."""
    rng, arrivals, clock = random.Random(seed), ArrivalQueue(), Clock(0.0)
    out = []

    def drain():
        while (arrived := arrivals.pop(clock())) is not None:
            arrived.action()
            assert arrivals.has(arrived.sender)
            arrivals.settle(arrived)

    def take(sender, number, due_s):
        assert clock() >= due_s
        out.append((sender, number))

    for number, (sender, under_way_s, pause_s) in enumerate(sent):
        due_s = clock() + under_way_s
        arrivals.add(sender, due_s, partial(take, sender, number, due_s))
        clock.now_s += pause_s
        if rng.random() < 0.5:
            drain()
    while arrivals.next_s is not None:
        clock.now_s = max(clock(), arrivals.next_s)
        drain()
    everything = [(sender, number) for number, (sender, _, _) in enumerate(sent)]
    assert sorted(out, key=lambda each: each[1]) == everything
    for sender in "abc":
        numbers = [number for name, number in out if name == sender]
        assert numbers == sorted(numbers)
        assert not arrivals.has(sender)
