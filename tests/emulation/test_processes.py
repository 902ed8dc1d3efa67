"""Real node processes behind an emulated link: nothing arrives earlier than it would over one."""

import time

import pytest
from tests.machines import alone, close, pixels, secret_at, start_node, tiny_vit
from tests.node.stand_in import StandIn

from prism.control import keys
from prism.control import messages as control
from prism.emulation.place import EmulatedLink

NAMES = ("home", "far")
LATENCY_S = 0.2


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    path = tmp_path_factory.mktemp("emulated")
    key, medium = secret_at(path / "cluster.key"), path / "medium"
    text = f"4mbit,{LATENCY_S}s"
    link = EmulatedLink.open(text, medium, NAMES)
    coordinator = StandIn(keys.read(key), delivery=link.delivery())
    options = ("--link", text, "--medium", str(medium), "--places", ",".join(NAMES))
    processes = [
        start_node(path / f"{name}.log", name, coordinator.endpoint, key, *options)
        for name in NAMES
    ]
    try:
        coordinator.wait_for(*NAMES)
        coordinator.vit = tiny_vit()
        coordinator.vit.save_pretrained(path / "vit")
        for name in NAMES:
            coordinator.loaded(name, path / "vit")
        yield coordinator
    finally:
        for process in processes:
            process.kill()
            process.wait()
        coordinator.close()
        link.close()


def round_trip_s(coordinator, name, payload=b""):
    begun_s = time.monotonic()
    answer = coordinator.answer(coordinator.probe(name, payload))
    assert isinstance(answer[1], control.Done)
    return time.monotonic() - begun_s


def test_a_round_trip_takes_the_latency_twice_and_the_payload_its_air(site):
    assert round_trip_s(site, "far") >= 2 * LATENCY_S
    nbytes = 250_000  # half a second
    assert round_trip_s(site, "far", bytes(nbytes)) >= 2 * LATENCY_S + nbytes * 8 / 4e6


def test_the_home_node_answers_before_the_far_one_that_was_asked_first(site):
    far, home = site.probe("far"), site.probe("home", bytes(500_000))
    site.answer(home)
    assert site.answers[far].empty()
    site.answer(far)


def test_a_small_message_does_not_overtake_a_large_one_to_the_same_node(site):
    large = site.probe("far", bytes(200_000))
    small = site.probe("far")
    site.answer(small)
    assert not site.answers[large].empty()


def test_a_sequence_plan_is_right_and_stands_waiting_for_its_peer(site):
    epoch, _ = site.form(*NAMES)
    for seed in range(2):
        x = pixels(2, seed)
        request = site.run(NAMES, "seq:2:full", x, epoch=epoch)
        logits, record = site.output(request, nodes=2)
        assert close(logits, alone(site.vit, pixel_values=x).logits)
        assert record["comm_s"] >= LATENCY_S


def test_an_input_takes_the_air_time_of_its_bytes(site):
    x = pixels(20)
    request = site.announce("far")
    _, record = site.output(site.run(["far"], "local", x, request=request))
    air_s = x.nbytes * 8 / 4e6
    assert air_s <= record["input_s"] < record["total_s"]
