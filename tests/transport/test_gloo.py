"""Gloo and the emulated link among three real processes, one of which dies or freezes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import prism
from prism.errors import ConfigError, DeadlineExceeded, PeerLost
from prism.transport.gloo import GlooTransport, connect_store, epoch_store, serve_store

PEER = Path(__file__).with_name("peer.py")
SOURCE = str(Path(prism.__file__).parents[1])
RANKS = (0, 1, 2)


@pytest.fixture(scope="module")
def store():
    return serve_store("127.0.0.1", 0, 30.0)


def start(fault, directory):
    # One store per run, because a store remembers its epochs.
    store = serve_store("127.0.0.1", 0, 30.0)
    env = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    args = [sys.executable, str(PEER), fault]
    peers = [
        subprocess.Popen(
            [*args, str(rank), str(store.port), str(directory / "medium")],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in RANKS
    ]
    return store, peers


def finish(peers, ranks):
    seen = {}
    for rank in ranks:
        out, err = peers[rank].communicate(timeout=60)
        assert peers[rank].returncode == 0, err
        seen[rank] = json.loads(out, object_hook=_int_keys)
    return seen


def _int_keys(values):
    return {int(key) if key.isdigit() else key: value for key, value in values.items()}


def stop(peers):
    for peer in peers:
        peer.kill()
        peer.communicate()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    store, peers = start("kill", tmp_path_factory.mktemp("kill"))
    try:
        seen = finish(peers, (0, 1))
        assert peers[2].wait(30) == -signal.SIGKILL
        yield seen
    finally:
        stop(peers)
        del store


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    store, peers = start("freeze", tmp_path_factory.mktemp("freeze"))
    try:
        seen = finish(peers, (0, 1))
        peers[2].send_signal(signal.SIGCONT)
        yield {**seen, **finish(peers, (2,))}
    finally:
        stop(peers)
        del store


def others(rank):
    return [peer for peer in RANKS if peer != rank]


@pytest.mark.parametrize("rank", (0, 1))
class TestExchange:
    def test_unequal_frames_arrive_whole(self, killed, rank):
        expected = {peer: [100 + 1000 * peer, [peer + 1]] for peer in others(rank)}
        assert killed[rank]["unequal"] == expected

    def test_counters_tell_bytes_messages_and_waiting(self, killed, rank):
        sent, received, messages, comm_s = killed[rank]["counters"]
        assert sent == 2 * (100 + 1000 * rank)
        assert received == sum(100 + 1000 * peer for peer in others(rank))
        assert messages == 2
        assert comm_s > 0
        assert killed[rank]["received_once"]

    def test_causal_ranks_receive_from_earlier_ones_only(self, killed, rank):
        assert killed[rank]["causal"] == {peer: [peer + 1] for peer in range(rank)}

    def test_large_frames_overlap_and_may_be_awaited_in_any_order(self, killed, rank):
        expected = {peer: [4_000_000, 3_000_000] for peer in others(rank)}
        assert killed[rank]["overlapping"] == expected

    def test_every_wire_dtype_survives_the_trip(self, killed, rank):
        assert killed[rank]["wires"] == {"float32": True, "float16": True, "bfloat16": True}


@pytest.mark.parametrize("rank", (0, 1))
class TestShaped:
    def test_frames_arrive_no_earlier_than_the_link_allows(self, killed, rank):
        paced = killed[rank]["paced"]
        peer = 1 - rank
        # Two copies of 20 kB at 20 Mbit/s, then 5 ms.
        earliest = killed[peer]["paced"]["begun"] + 2 * 20_000 * 8 / 20e6 + 0.005
        assert paced["stamps"][peer] >= earliest - 1e-9
        assert paced["ended"] >= max(paced["stamps"].values())

    def test_the_stamp_is_no_traffic(self, killed, rank):
        causal, large, paced = 1000, 2 * (4_000_000 + 3_000_000), 2 * 20_000
        wires = [2 * (3 + peer) * 8 * (4 + 2 + 2) for peer in RANKS]
        sent = causal * (2 - rank) + large + 2 * wires[rank] + paced
        received = causal * rank + large + sum(wires[peer] for peer in others(rank)) + paced
        assert killed[rank]["paced_bytes"] == [sent, received]

    def test_only_receivers_wait_for_the_emulated_link(self, killed, rank):
        seen = killed[rank]["one_way"]
        if rank == 0:
            assert seen["ended"] - seen["begun"] < 0.8
        else:
            assert seen["ended"] >= killed[0]["one_way"]["begun"] + 0.8
            assert 0 < seen["comm_s"] <= seen["ended"] - seen["begun"]

    def test_a_stalled_peer_is_late(self, killed, rank):
        if rank == 0:
            assert killed[0]["stalled"]["ended"] >= killed[1]["stalled"]["begun"] + 0.3
        else:
            held = max(killed[1]["stalled"]["stamps"].values())
            assert held < killed[0]["stalled"]["ended"]

    def test_a_vanished_frame_ends_at_the_deadline(self, killed, rank):
        if rank == 0:
            name, message = killed[0]["dropped"]
            assert name == "DeadlineExceeded" and "rank 1 " in message and "0.5 s" in message
            assert killed[0]["dropped_again"][0] == "DeadlineExceeded"
            assert killed[0]["dropped_post"][0] == "ClusterError"
        else:
            assert killed[1]["dropped"] is None

    def test_totals_are_those_of_the_inner_transport(self, killed, rank):
        assert killed[rank]["shared_totals"]


@pytest.mark.parametrize("rank", (0, 1))
class TestFault:
    def test_a_killed_peer_is_lost_long_before_the_deadline(self, killed, rank):
        name, message = killed[rank]["fault"]
        assert name == "PeerLost" and "rank 2 " in message
        assert killed[rank]["fault_s"] < 15

    def test_a_frozen_peer_is_noticed_at_the_deadline(self, frozen, rank):
        name, message = frozen[rank]["fault"]
        assert name == "DeadlineExceeded" and "rank 2 " in message and "1 s" in message
        assert 1.0 <= frozen[rank]["fault_s"] < 15

    @pytest.mark.parametrize("fault", ("killed", "frozen"))
    def test_a_failed_transport_refuses_and_closes_at_once(self, request, fault, rank):
        seen = request.getfixturevalue(fault)[rank]
        assert seen["fault_post"][0] == "ClusterError" and "rank 2" in seen["fault_post"][1]
        # A killed peer can be noticed by the first post already; then no handle is there to wait.
        if fault == "frozen":
            for name, message in (seen["fault_wait"], seen["fault_sent"]):
                assert name == "ClusterError" and "rank 2" in message
        assert seen["open_after_fault"] and seen["closed"]
        assert seen["close_s"] < 5
        assert seen["leftover_tasks"] == 0
        assert all(name == "ClusterError" for name, _ in seen["closed_wait"])
        assert seen["closed_post"][0] == "ClusterError"

    @pytest.mark.parametrize("fault", ("killed", "frozen"))
    def test_survivors_form_a_new_epoch_on_the_same_store(self, request, fault, rank):
        assert request.getfixturevalue(fault)[rank]["regrouped"] == [2 - rank]


def test_a_thawed_peer_finds_itself_left_behind(frozen):
    assert frozen[2]["thawed"][0] == "PeerLost"


def test_a_rank_that_never_comes_is_named_by_a_deadline(store):
    with pytest.raises(DeadlineExceeded, match=r"all 2 ranks within 0.3 s"):
        GlooTransport(epoch_store(store, 7), 0, 2, 0.3, "127.0.0.1")


def test_an_address_of_another_machine_is_refused(store):
    with pytest.raises(ConfigError, match=r"203\.0\.113\.9"):
        GlooTransport(epoch_store(store, 8), 0, 2, 1.0, "203.0.113.9")
    with pytest.raises(ConfigError, match=r"203\.0\.113\.9"):
        serve_store("203.0.113.9", 0, 1.0)


def test_a_store_that_is_not_there_is_a_lost_peer():
    with pytest.raises(PeerLost, match=r"127\.0\.0\.1:1 "):
        connect_store("127.0.0.1", 1, 0.5)
