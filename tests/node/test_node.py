"""Real node processes, told what to do by a stand-in for the coordinator.

What a node does first is seen from the order of its answers, never from a clock.
"""

import time

import pytest
import torch
from tests.machines import alone, close, pixels
from tests.node.stand_in import NODES, big_pixels

from prism.control import codec
from prism.control import messages as control

BIG = 9  # number of the big model
LONG = 24  # rows for it


@pytest.fixture(scope="module")
def big(shared_site):
    """A model that computes for seconds, on both nodes."""
    for name in NODES:
        shared_site.coordinator.loaded(name, "random:vit-base", BIG)
    yield
    for name in NODES:
        shared_site.coordinator.send(name, control.Unload(model=BIG))


@pytest.fixture
def busy(site, big):
    """Both nodes compute for seconds; return the request, which is given up at the end."""
    coordinator = site.coordinator
    before = coordinator.run(NODES, "local", pixels(1))
    request = coordinator.run(NODES, "local", big_pixels(LONG), model=BIG)
    coordinator.output(before, nodes=2)  # the long one is what they turn to next
    yield request
    for name in NODES:
        coordinator.send(name, control.Cancel(request=request))


def test_a_model_is_loaded_run_and_unloaded(site):
    coordinator, x = site.coordinator, pixels(3)
    assert coordinator.loaded("a", site.model) == coordinator.loaded("b", site.model)
    logits, record = coordinator.output(coordinator.run(["a"], "local", x))
    assert close(logits, alone(site.vit, pixel_values=x).logits)
    assert (record["node"], record["batch"], record["length"]) == ("a", 3, 17)
    coordinator.send("a", control.Unload(model=1))
    coordinator.failure(coordinator.load("a", site.path / "nothing", model=7))  # after it
    failed = coordinator.failure(coordinator.run(["a"], "local", x))
    assert failed.error == "ClusterError" and "has not loaded model 1" in failed.message


def test_an_input_takes_from_its_announcement_to_its_arrival(site):
    coordinator, x = site.coordinator, pixels(1)
    request = coordinator.announce("a")
    coordinator.answer(coordinator.probe("a"))  # it has heard of it
    begun_s = time.monotonic()
    for _ in range(20):
        coordinator.answer(coordinator.probe("a"))
    least_s = time.monotonic() - begun_s
    _, record = coordinator.output(coordinator.run(["a"], "local", x, request=request))
    assert least_s <= record["input_s"] < record["total_s"]
    parts = ("compute_s", "staging_s", "comm_s", "input_s", "output_s", "queue_s")
    assert sum(record[name] for name in parts) == pytest.approx(record["total_s"])
    _, record = coordinator.output(coordinator.run(["a"], "local", x))
    assert record["input_s"] < least_s  # this one was not announced


def test_a_large_answer_is_announced_and_a_small_one_is_not(site):
    coordinator = site.coordinator
    for batch, expected in ((250, ["Announce", "Done"]), (2, ["Done"])):
        request = coordinator.run(["a"], "local", pixels(batch))
        coordinator.output(request)
        assert [kind for number, kind in coordinator.order if number == request] == expected


def test_two_nodes_run_a_sequence_plan_in_a_group_they_keep(site):
    coordinator = site.coordinator
    epoch, _ = coordinator.form("a", "b")
    for seed in range(3):
        x = pixels(2, seed)
        request = coordinator.run(NODES, "seq:2:full", x, epoch=epoch)
        logits, record = coordinator.output(request, nodes=2)
        assert close(logits, alone(site.vit, pixel_values=x).logits)
        assert record["messages"] > 0


def test_exchanges_are_timed(site):
    coordinator = site.coordinator
    epoch, request = coordinator.form("a", "b")
    message = control.TimeExchanges(
        request=request, epoch=epoch, sizes=(10, 1000), repeats=2, senders=(0,)
    )
    for name in NODES:
        coordinator.send(name, message)
    times = dict(coordinator.answer(request)[:2] for _ in range(2))
    assert times["a"].times_s == (0.0, 0.0)  # it only sends
    assert len(times["b"].times_s) == 2 and min(times["b"].times_s) > 0.0


def test_the_coding_of_images_is_timed(site):
    request = site.coordinator.time_coding("a")
    name, message, _ = site.coordinator.answer(request)
    assert (name, type(message)) == ("a", control.CodingTimed)
    assert message.compress_per_byte_s > 0 and message.decompress_per_byte_s > 0


def test_a_broken_image_fails_its_request_and_no_other(site):
    coordinator, x = site.coordinator, pixels(1)
    image = torch.full((2, 3, 32, 32), 7, dtype=torch.uint8)
    description, (frame,) = codec.pack({"pixel_values": image}, lambda nbytes, ratio: True)
    for broken in (frame[:-2], memoryview(b"\xff" * 9)):
        failed = coordinator.failure(coordinator.send_run(["a"], "local", description, [broken]))
        assert failed.error == "ClusterError" and "a compressed image" in failed.message
    logits, _ = coordinator.output(coordinator.run(["a"], "local", x))
    assert close(logits, alone(site.vit, pixel_values=x).logits)


def test_rows_that_follow_join_the_first(site):
    coordinator, x = site.coordinator, pixels(3)
    packed = codec.pack({"pixel_values": x[:1]})
    request = coordinator.send_run(["a"], "batch:2", *packed, rest_rows=2)
    coordinator.send_rest("a", request, {"pixel_values": x[1:]})
    logits, record = coordinator.output(request)
    assert close(logits, alone(site.vit, pixel_values=x).logits)
    assert record["batch"] == 3


@pytest.mark.parametrize(
    "rows",
    [
        {"pixel_values": torch.rand(2, 3, 64, 64)},
        {"pixel_values": torch.rand(2, 3, 32, 32, 1)},
        {"pixel_values": torch.tensor(1.0)},
        {"pixel_values": "rows"},
        {"pixels": torch.rand(2, 3, 32, 32)},
        {},
        [torch.rand(2, 3, 32, 32)],
    ],
)
def test_rows_that_do_not_fit_fail_their_request_and_no_other(site, rows):
    coordinator, x = site.coordinator, pixels(1)
    request = coordinator.send_run(["a"], "batch:2", *codec.pack({"pixel_values": x}), rest_rows=2)
    coordinator.send_rest("a", request, rows)
    failed = coordinator.failure(request)
    assert failed.error == "ModelFailed" and "\n" not in failed.message
    logits, _ = coordinator.output(coordinator.run(["a"], "local", x))
    assert close(logits, alone(site.vit, pixel_values=x).logits)


def test_rows_that_nobody_asked_for_do_no_harm(site):
    coordinator, x = site.coordinator, pixels(1)
    request = coordinator.announce("a")
    coordinator.send_rest("a", request, {"pixel_values": x})
    coordinator.run(["a"], "local", x, request=request)
    coordinator.send_rest("a", request, {"pixel_values": x})
    logits, record = coordinator.output(request)
    assert close(logits, alone(site.vit, pixel_values=x).logits)
    assert record["batch"] == 1


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 32, 32), (10**15, 3, 32, 32), (2,), ()])
def test_a_part_of_an_input_that_cannot_be_is_refused_in_words(site, shape):
    coordinator = site.coordinator
    epoch, _ = coordinator.form("a", "b")
    packed = codec.pack({"pixel_values": torch.rand(2, 8, 3, 8, 8)})
    request = coordinator.send_run(
        ["b"], "seq:2:L2", *packed, epoch=epoch, whole_shape=shape, timeout_s=1e4
    )
    failed = coordinator.failure(request)
    assert failed.error == "ClusterError" and "a part of shape (2, 8, 3, 8, 8)" in failed.message
    coordinator.send("a", control.CloseGroups(epochs=(epoch,)))


@pytest.mark.parametrize(
    ("plan", "inputs", "error"),
    [
        ("seq:2:full", {"pixel_values": torch.rand(1, 3, 32, 32)}, "ClusterError"),  # no such epoch
        ("local", {"pixel_values": torch.rand(1, 5, 32, 32)}, "ModelFailed"),
        ("local?", {"pixel_values": torch.rand(1, 3, 32, 32)}, "PlanError"),
    ],
)
def test_failures_carry_the_name_of_their_error(site, plan, inputs, error):
    epoch = 10**6 if plan.startswith("seq") else None
    request = site.coordinator.run(["a"], plan, inputs["pixel_values"], epoch=epoch)
    assert site.coordinator.failure(request).error == error
    x = pixels(1)
    logits, _ = site.coordinator.output(site.coordinator.run(["a"], "local", x))
    assert close(logits, alone(site.vit, pixel_values=x).logits)


class TestBusyNodes:
    def test_a_probe_is_answered_while_a_forward_pass_runs(self, site, busy):
        coordinator = site.coordinator
        probes = [coordinator.probe(name, b"x" * 10_000) for name in NODES]
        for probe in probes:
            assert isinstance(coordinator.answer(probe)[1], control.Done)
        assert busy not in [request for request, _ in coordinator.order]

    def test_a_model_is_loaded_while_a_forward_pass_runs(self, site, busy):
        coordinator = site.coordinator
        coordinator.loaded("a", site.model, model=5)
        assert busy not in [request for request, _ in coordinator.order]

    def test_a_running_request_is_dropped_and_the_next_is_right(self, site, busy):
        coordinator, x = site.coordinator, pixels(2)
        following = coordinator.run(["a"], "local", x)
        coordinator.send("a", control.Cancel(request=busy))
        assert coordinator.failure(busy).error == "Cancelled"
        logits, _ = coordinator.output(following)
        assert close(logits, alone(site.vit, pixel_values=x).logits)

    def test_a_request_given_up_before_it_begins_is_never_begun(self, site, busy):
        coordinator = site.coordinator
        waiting = coordinator.run(["a"], "local", pixels(1))
        for request in (waiting, busy, 10**9):  # one that nobody knows does no harm
            coordinator.send("a", control.Cancel(request=request))
        failed = coordinator.failure(waiting)
        assert failed.error == "Cancelled" and "before it began" in failed.message

    def test_a_group_given_up_while_the_node_was_busy_is_not_formed(self, site, busy):
        coordinator, x = site.coordinator, pixels(1)
        # Nobody else comes: to form it would fail after seconds of waiting.
        epoch, forming = coordinator.form("a", members=("a", "ghost"))
        in_it = coordinator.run(["a"], "seq:2:full", x, epoch=epoch)
        following = coordinator.run(["a"], "local", x)
        coordinator.send("a", control.CloseGroups(epochs=(epoch,)))
        coordinator.send("a", control.Cancel(request=busy))
        coordinator.output(following)
        assert "has left epoch" in coordinator.failure(in_it).message
        assert coordinator.answers[forming].empty()

    def test_what_was_asked_before_the_node_joined_again_is_not_answered(self, site, busy):
        coordinator, x = site.coordinator, pixels(1)
        waiting = coordinator.run(["a"], "local", x)
        coordinator.lose_sight("a")
        logits, _ = coordinator.output(coordinator.run(["a"], "local", x))
        assert close(logits, alone(site.vit, pixel_values=x).logits)  # its models stayed
        answered = [request for request, _ in coordinator.order]
        assert waiting not in answered and busy not in answered


class TestGroups:
    def test_a_closed_group_is_seen_as_broken_by_the_others(self, site):
        coordinator, x = site.coordinator, pixels(1)
        epoch, _ = coordinator.form("a", "b")
        coordinator.output(coordinator.run(NODES, "seq:2:full", x, epoch=epoch), nodes=2)
        coordinator.send("b", control.CloseGroups(epochs=(epoch,)))
        request = coordinator.run(["a"], "seq:2:full", x, epoch=epoch, timeout_s=1e4)
        assert coordinator.failure(request).error == "PeerLost"
        for name in NODES:  # a left it by failing, b was told to
            failed = coordinator.failure(coordinator.run([name], "seq:2:full", x, epoch=epoch))
            assert "has left epoch" in failed.message

    def test_who_cannot_run_its_part_lets_the_others_know(self, site):
        coordinator, x = site.coordinator, pixels(1)
        epoch, _ = coordinator.form("a", "b")
        coordinator.output(coordinator.run(NODES, "seq:2:full", x, epoch=epoch), nodes=2)
        request = coordinator.run(["a"], "seq:2:full", x, epoch=epoch, timeout_s=1e4)
        coordinator.run(["b"], "seq:2:full", x, model=77, epoch=epoch, request=request)
        errors = {
            name: message.error for name, message, _ in map(coordinator.answer, [request] * 2)
        }
        assert errors == {"a": "PeerLost", "b": "ClusterError"}

    def test_a_request_given_up_on_all_nodes_frees_them_all(self, site, big):
        coordinator, x = site.coordinator, pixels(1)
        epoch, _ = coordinator.form("a", "b")
        request = coordinator.run(
            NODES, "seq:2:full", big_pixels(LONG), model=BIG, epoch=epoch, timeout_s=1e4
        )
        for name in NODES:
            coordinator.send(name, control.Cancel(request=request))
        errors = [coordinator.failure(request).error for _ in range(2)]
        # Who notices first leaves the group; the other may see that before its own next block.
        assert "Cancelled" in errors and set(errors) <= {"Cancelled", "PeerLost"}
        epoch, _ = coordinator.form("a", "b")
        again = coordinator.run(NODES, "seq:2:full", x, epoch=epoch)
        logits, _ = coordinator.output(again, nodes=2)
        assert close(logits, alone(site.vit, pixel_values=x).logits)

    def test_a_member_that_does_not_come_is_reported(self, site):
        _, request = site.coordinator.form("a", members=("a", "ghost"))
        assert site.coordinator.failure(request).error in ("DeadlineExceeded", "PeerLost")

    def test_another_transport_is_refused_by_name(self, site):
        coordinator = site.coordinator
        group = control.Group(
            epoch=10**7, members=("a", "b"), transport="carrier-pigeon", meeting_port=1
        )
        request = coordinator.probe("a")
        coordinator.answer(request)
        coordinator.send("a", control.FormGroup(request=request, group=group))
        failed = coordinator.failure(request)
        assert failed.error == "ConfigError" and "carrier-pigeon" in failed.message
