import time
import uuid

import pytest
import zmq
from tests.machines import until

from prism.control import keys
from prism.control import messages as control
from prism.coordinator.coordinator import Coordinator
from prism.errors import ClusterError, ConfigError
from prism.transport.factory import GlooFactory

FACTS = control.NodeFacts(
    hardware="test", device="cpu", threads=1, prism="1", torch="2", transformers="5"
)


class Caller:
    """Speaks to a coordinator over a real socket."""

    def __init__(self, coordinator, secret=None, name="caller"):
        self.name, self.instance = name, uuid.uuid4().hex
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        if secret is not None:
            keys.secure_client(self.socket, secret)
        self.socket.connect(f"tcp://127.0.0.1:{coordinator.port}")

    def say(self, message):
        self.socket.send_multipart(control.encode(message))

    def hello(self, **changes):
        hello = control.Hello(
            protocol=control.PROTOCOL, name=self.name, instance=self.instance,
            address="127.0.0.1", pid=1, facts=FACTS,
        )  # fmt: skip
        self.say(hello.model_copy(update=changes))

    def hear(self, timeout_s=5.0):
        """Return the next message that is not a ping; None if there is none."""
        deadline = time.monotonic() + timeout_s
        while self.socket.poll(max(0, 1000 * (deadline - time.monotonic()))):
            message, _ = control.decode(self.socket.recv_multipart())
            if not isinstance(message, control.Ping):
                return message
        return None

    def close(self):
        self.context.destroy(linger=0)


@pytest.fixture
def secret():
    return keys.generate()


@pytest.fixture
def coordinator(secret):
    coordinator = Coordinator("127.0.0.1", 0, secret, GlooFactory())
    yield coordinator
    coordinator.close()


@pytest.fixture
def call(coordinator):
    callers = []

    def make(*arguments, **named):
        callers.append(Caller(coordinator, *arguments, **named))
        return callers[-1]

    yield make
    for caller in callers:
        caller.close()


def test_only_holders_of_the_secret_are_served(coordinator, secret, call):
    strangers = [call(keys.generate()), call(None)]
    # Knows the coordinator's public key, as anybody could who saw it, but has keys of its own.
    other = keys.generate()
    half = call(None)
    half.socket.close(linger=0)
    half.socket = half.context.socket(zmq.DEALER)
    half.socket.curve_serverkey = secret.public
    half.socket.curve_publickey, half.socket.curve_secretkey = other.public, other.private
    half.socket.connect(f"tcp://127.0.0.1:{coordinator.port}")
    for stranger in (*strangers, half):
        stranger.hello()
    friend = call(secret, name="friend")
    friend.hello()
    assert isinstance(friend.hear(), control.Welcome)
    assert [stranger.hear(0.5) for stranger in (*strangers, half)] == [None] * 3
    assert coordinator.alive == ("friend",)


def test_other_versions_and_protocols_are_refused_with_both_values(coordinator, secret, call):
    call(secret, name="first").hello()
    assert coordinator.wait_for(["first"], 5.0) == ()
    other = call(secret, name="other")
    other.hello(facts=FACTS.model_copy(update={"torch": "1.13"}))
    refused = other.hear()
    assert isinstance(refused, control.Refused)
    assert "torch 1.13" in refused.reason and "first has 2" in refused.reason
    other.socket.send(b'{"kind": "hello", "protocol": 99, "new": 1}')
    refused = other.hear()
    assert "99" in refused.reason and f"coordinator {control.PROTOCOL}" in refused.reason
    assert coordinator.alive == ("first",)


def test_a_broken_connection_is_noticed_before_the_silence(coordinator, secret, call):
    caller = call(secret)
    caller.hello()
    assert coordinator.wait_for(["caller"], 5.0) == ()
    begun = time.monotonic()
    caller.socket.close(linger=0)
    assert until(lambda: coordinator.alive == ())
    assert time.monotonic() - begun < 2.5  # silence alone takes 3 s


def test_a_silent_node_is_lost_and_told_to_say_hello_when_heard_again(coordinator, secret, call):
    caller = call(secret)
    caller.hello()
    first = caller.hear()
    assert until(lambda: coordinator.alive == ())
    assert caller.hear(0.1) is None
    caller.say(control.Heartbeat(name="caller", instance=caller.instance))
    assert isinstance(caller.hear(), control.Unknown)
    caller.hello()
    again = caller.hear()
    assert isinstance(again, control.Welcome) and again.since > first.since
    assert coordinator.alive == ("caller",)


def test_a_second_node_of_the_same_name_is_refused_while_the_first_lives(coordinator, secret, call):
    first, second = call(secret), call(secret)
    first.hello()
    assert isinstance(first.hear(), control.Welcome)
    answer = None
    for _ in range(20):
        first.say(control.Heartbeat(name="caller", instance=first.instance))
        second.hello()
        answer = answer or second.hear(0.1)
    assert isinstance(answer, control.Refused) and "caller" in answer.reason
    assert coordinator.hello("caller").instance == first.instance


def test_a_restarted_node_takes_the_place_of_the_dead_one(coordinator, secret, call):
    first = call(secret)
    first.hello()
    assert isinstance(first.hear(), control.Welcome)
    second = call(secret)
    assert until(lambda: second.hello() or second.hear(0.3), timeout_s=8.0)
    assert coordinator.hello("caller").instance == second.instance


def test_malformed_messages_do_not_stop_the_coordinator(coordinator, secret, call):
    caller = call(secret)
    for frames in ([b""], [b"{", b"x"], [b"\xff"], [b"", b"", b""]):
        caller.socket.send_multipart(frames)
        assert isinstance(caller.hear(), control.Refused)
    caller.hello()
    assert isinstance(caller.hear(), control.Welcome)


def test_a_closed_coordinator_says_so(coordinator):
    coordinator.close()
    coordinator.close()
    with pytest.raises(ClusterError, match="closed"):
        coordinator.call()


def test_an_unknown_node_is_named(coordinator):
    with pytest.raises(ClusterError, match="ghost"):
        coordinator.hello("ghost")


def test_a_port_in_use_is_named(coordinator, secret):
    with pytest.raises(ConfigError, match=f"127.0.0.1:{coordinator.port}"):
        Coordinator("127.0.0.1", coordinator.port, secret, GlooFactory())
