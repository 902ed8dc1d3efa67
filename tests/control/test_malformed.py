"""Messages that cannot be read: one line now and then, and everybody else is served."""

import logging
import threading

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.control.wild import WILD
from tests.emulation.clocks import Clock

from prism.control import keys
from prism.control import messages as control
from prism.control.listener import Listener
from prism.control.malformed import LINE_EVERY_S, MalformedLog

HOST = "127.0.0.1"


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="prism")
    return lambda: [record.getMessage() for record in caplog.records]


def test_the_first_is_told_at_once_and_the_others_are_counted(lines):
    clock = Clock(0.0)
    log = MalformedLog("somebody", clock)
    log.report()
    assert lines() == []
    log.add("no such kind")
    assert lines() == ["somebody dropped 1 malformed message; the last: no such kind"]
    for number in range(1000):
        log.add(f"reason {number}")
    clock.now_s = LINE_EVERY_S - 0.1
    log.report()
    assert len(lines()) == 1
    clock.now_s = LINE_EVERY_S
    log.report()
    log.report()
    assert lines()[1:] == ["somebody dropped 1000 malformed messages; the last: reason 999"]
    clock.now_s = 10 * LINE_EVERY_S
    log.report()
    assert len(lines()) == 2


class Keeper:
    """A handler that keeps the probes, and fails on what it does not expect."""

    def __init__(self):
        self.requests = []
        self.changed = threading.Condition()

    def receive(self, identity, frames):
        message, _ = control.decode(frames)
        if isinstance(message, control.Done):
            with self.changed:
                self.requests.append(message.request)
                self.changed.notify_all()
        elif isinstance(message, control.Failed):
            raise KeyError("a mistake of the handler's own")

    def tick(self):
        pass

    def unreachable(self, identity):
        pass

    def wait_for(self, request):
        with self.changed:
            assert self.changed.wait_for(lambda: request in self.requests, 30.0)


@pytest.fixture(scope="module")
def served():
    """A listener, what it handed over, and a raw socket of somebody with the secret."""
    secret, keeper = keys.generate(), Keeper()
    listener = Listener(HOST, 0, secret)
    listener.serve(keeper)
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    keys.secure_client(dealer, secret)
    dealer.connect(f"tcp://{HOST}:{listener.port}")
    yield keeper, dealer
    dealer.close(linger=0)
    context.destroy(linger=0)
    listener.close()


FUZZ = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(bad=st.lists(st.lists(WILD, min_size=1, max_size=3), min_size=1, max_size=8))
def test_whatever_comes_the_next_message_is_received_and_nothing_is_traced(served, caplog, bad):
    keeper, dealer = served
    for frames in bad:
        dealer.send_multipart(frames)
    request = len(keeper.requests) + 10**6
    dealer.send_multipart(control.encode(control.Done(request=request)))
    keeper.wait_for(request)
    assert not [record for record in caplog.records if record.exc_info]
    assert all(len(record.getMessage()) < 1200 for record in caplog.records)


def test_thousands_are_one_line(served, lines):
    keeper, dealer = served
    for depth in range(2000):
        dealer.send(b"[" * depth)
    dealer.send_multipart(control.encode(control.Done(request=5)))
    keeper.wait_for(5)
    assert len(lines()) <= 1


def test_a_mistake_of_the_handler_is_traced_and_ends_nothing(served, caplog):
    keeper, dealer = served
    dealer.send_multipart(control.encode(control.Failed(request=1, error="", message="")))
    dealer.send_multipart(control.encode(control.Done(request=6)))
    keeper.wait_for(6)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info[0] is KeyError
