"""How a node process begins and ends, and what it says meanwhile."""

import signal

from pydantic import BaseModel
from tests.machines import pixels, until
from tests.node.stand_in import StandIn

from prism.control import messages as control


class Odd(BaseModel):
    kind: str = "odd"


class Nested(BaseModel):
    kind: str = "run"
    inputs: list = []


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return Nested.model_construct(kind="run", inputs=value)


def test_a_node_serves_one_coordinator_after_another_and_ends_on_ctrl_c(lone_site):
    first = StandIn(lone_site.secret, identity="first")
    port = first.listener.port
    process = lone_site.start("a", first.endpoint)
    first.wait_for("a")
    first.loaded("a", lone_site.model)
    first.close()
    assert until(lambda: "waiting for the next" in lone_site.log("a"))
    second = StandIn(lone_site.secret, identity="second", port=port)
    second.wait_for("a")
    failed = second.failure(second.run(["a"], "local", pixels(1)))
    assert "has not loaded model 1" in failed.message  # the models were the first one's
    process.send_signal(signal.SIGINT)
    assert process.wait(10.0) == 0
    lines = lone_site.log("a").splitlines()
    assert lines == [
        f"a: joined {first.endpoint}",
        "a: the coordinator closed; waiting for the next",
        f"a: joined {first.endpoint}",
        "a: stopped by SIGINT",
    ]
    second.close()


def test_a_refused_node_says_why_and_ends_with_1(lone_site):
    coordinator = StandIn(lone_site.secret, refusal="there are enough")
    process = lone_site.start("a", coordinator.endpoint)
    assert process.wait(60.0) == 1
    assert lone_site.log("a") == "prism: the coordinator refused a: there are enough\n"
    coordinator.close()


def test_messages_that_a_node_does_not_understand_are_one_line(site):
    coordinator = site.coordinator
    for message in (Odd(), nested(150), Odd(kind="x" * 10**6)) * 20:
        coordinator.send("a", message)
    assert isinstance(coordinator.answer(coordinator.probe("a"))[1], control.Done)
    dropped, *more = [line for line in site.log("a").splitlines() if "malformed" in line]
    assert len(more) < 5  # one in ten seconds, on a machine however slow
    assert dropped.startswith("a dropped 1 malformed message; the last: not a prism message")
    assert len(dropped) < 400 and "Traceback" not in site.log("a")
