"""When packets arrive: the arithmetic of the forwarder, with times of the test's own."""

import struct

import pytest
from bench.lab.packets import FRAMING, LONGEST_QUEUE_NS, MOST_HELD, Frame, Medium, Port
from hypothesis import given
from hypothesis import strategies as st

MS = 1_000_000
RATE_BPS = 100e6


NOTHING_TO_DO = bytes(10)
HEADERS = 20 + 32  # of IP, and of TCP with timestamps


def packet(to, nbytes=1000, version=4, todo=NOTHING_TO_DO):
    head = bytearray(nbytes)
    head[0] = version << 4 | 5
    head[16:20] = bytes((10, 78, 0, to))
    return Frame(todo, bytes(head))


def unsegmented(to, data_bytes, segment_bytes=1448):
    """Return a packet of TCP as a kernel leaves it to a network card that segments."""
    ip = bytearray(packet(to, HEADERS + data_bytes).ip)
    ip[20 + 12] = (HEADERS - 20) // 4 << 4
    return Frame(struct.pack("=BBHHHH", 1, 1, HEADERS, segment_bytes, 20, 16), bytes(ip))


def medium(boards=3, rate_bps=RATE_BPS, delay_ns=3 * MS, loss_ppm=0, shared=False):
    return Medium([Port(index) for index in range(boards)], rate_bps, delay_ns, loss_ppm, shared)


def arrivals(network, board):
    return [at_ns for at_ns, _ in network.ports[board - 1].queue]


def takes_ns(nbytes=1000, rate_bps=RATE_BPS):
    return int((nbytes + FRAMING) * 8 / rate_bps * 1e9)


def send(network, source, to, nbytes=1000, now_ns=0):
    network.accept(network.ports[source - 1], packet(to, nbytes), now_ns)


def test_packets_of_one_board_follow_each_other_at_the_rate():
    network = medium()
    for _ in range(3):
        send(network, 1, 2)
    assert arrivals(network, 2) == [takes_ns() * n + 3 * MS for n in (1, 2, 3)]
    assert network.soonest() == takes_ns() + 3 * MS


@given(
    st.integers(1, 60_000),
    st.sampled_from([536, 1448]),
    st.booleans(),
)
def test_what_is_segmented_on_the_way_arrives_with_its_last_segment(data_bytes, size, shared):
    whole, apart = medium(shared=shared), medium(shared=shared)
    whole.accept(whole.ports[0], unsegmented(2, data_bytes, size), 0)
    lengths = [min(size, data_bytes - start) for start in range(0, data_bytes, size)]
    for length in lengths:
        send(apart, 1, 2, HEADERS + length)
    last_ns = arrivals(apart, 2)[-1]
    assert arrivals(whole, 2) == [pytest.approx(last_ns, abs=len(lengths))]
    for network in (whole, apart):
        while network.due(network.ports[1], 10**12):
            pass
    counts = whole.counts
    assert (counts.packets, counts.bytes) == (apart.counts.packets, apart.counts.bytes)
    assert counts.late_ns == counts.latest_ns * len(lengths), "each of them was so late"
    assert whole.ports[1].held == apart.ports[1].held == 0


def test_segments_are_counted_where_they_are_lost_or_dropped():
    network = medium(rate_bps=1e6)
    network.reshape(1e6, 0, 0, cut=0b010)
    network.accept(network.ports[0], unsegmented(2, 3 * 1448), 0)
    assert network.counts.lost == 3
    network.reshape(1e6, 0, 0, cut=0)
    for _ in range(10):
        network.accept(network.ports[0], unsegmented(2, 3 * 1448), 0)
    kept = len(arrivals(network, 2))
    assert network.counts.dropped == 3 * (10 - kept) > 0


@pytest.mark.parametrize("todo", [b"", struct.pack("=BBHHHH", 1, 0, 0, 0, 20, 6)])
def test_what_needs_no_segmenting_is_one_packet(todo):
    assert packet(2, todo=todo).load() == (1, 1000)


def test_no_more_is_held_for_a_board_than_there_is_memory_for():
    network = medium(rate_bps=1e11)
    frame = unsegmented(2, 60_000)
    for _ in range(2 * MOST_HELD // 60_000):
        network.accept(network.ports[0], frame, 0)
    assert network.ports[1].held <= MOST_HELD + 65536
    assert network.counts.dropped > 0


def test_two_directions_of_a_switch_do_not_disturb_each_other_and_those_of_one_medium_do():
    switched, shared = medium(), medium(shared=True)
    for network in (switched, shared):
        send(network, 1, 2)
        send(network, 2, 1)
    assert arrivals(switched, 1) == arrivals(switched, 2) == [takes_ns() + 3 * MS]
    assert arrivals(shared, 2) + arrivals(shared, 1) == [
        takes_ns() + 3 * MS,
        2 * takes_ns() + 3 * MS,
    ]


def test_two_boards_that_send_to_a_third_share_its_downlink():
    network = medium()
    send(network, 1, 3)
    send(network, 2, 3)
    assert arrivals(network, 3) == [takes_ns() + 3 * MS, 2 * takes_ns() + 3 * MS]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(20, 1500)), max_size=40)
)
def test_no_direction_carries_more_than_the_rate_and_nothing_overtakes(packets):
    network = medium(delay_ns=0)
    sent = {board: 0 for board in (1, 2, 3)}
    for source, to, nbytes in packets:
        if source != to:
            send(network, source, to, nbytes)
            sent[to] += takes_ns(nbytes)
    for board, needed_ns in sent.items():
        times = arrivals(network, board)
        assert times == sorted(times)
        assert not times or times[-1] >= needed_ns


def test_a_packet_for_all_reaches_all_others_and_one_for_nobody_is_gone():
    network = medium()
    send(network, 1, 255)
    send(network, 1, 9)
    send(network, 1, 0)
    send(network, 1, 1)
    network.accept(network.ports[0], packet(2, version=6), 0)
    assert [len(arrivals(network, board)) for board in (1, 2, 3)] == [0, 1, 1]


def test_what_would_wait_too_long_is_dropped():
    network = medium(rate_bps=1e6)
    for _ in range(100):
        send(network, 1, 2)
    kept = len(arrivals(network, 2))
    assert kept + network.counts.dropped == 100
    assert arrivals(network, 2)[-1] <= LONGEST_QUEUE_NS + takes_ns(rate_bps=1e6) + 3 * MS
    assert network.counts.dropped > 0


def test_a_packet_is_given_out_when_it_is_due_and_counted():
    network = medium()
    send(network, 1, 2)
    at_ns = arrivals(network, 2)[0]
    assert network.due(network.ports[1], at_ns - 1) is None
    assert network.due(network.ports[1], at_ns + 7) == packet(2)
    assert (network.counts.packets, network.counts.bytes) == (1, 1000)
    assert (network.counts.late_ns, network.counts.latest_ns) == (7, 7)
    assert network.soonest() is None


@pytest.mark.parametrize(("source", "to"), [(1, 2), (2, 1)])
def test_nothing_passes_a_link_that_is_cut_until_it_is_whole_again(source, to):
    network = medium()
    send(network, 1, 2)  # under way
    network.reshape(RATE_BPS, 3 * MS, 0, cut=0b010)
    send(network, source, to)
    send(network, 1, 3)
    assert network.due(network.ports[1], 10**12) is None
    assert network.due(network.ports[2], 10**12) is not None
    assert network.counts.lost == 2
    network.reshape(RATE_BPS, 3 * MS, 0, cut=0)
    send(network, source, to)
    assert network.due(network.ports[to - 1], 10**12) is not None


def test_a_shorter_delay_overtakes_nothing():
    network = medium(delay_ns=500 * MS)
    send(network, 1, 2)
    network.reshape(RATE_BPS, 0, 0, cut=0)
    send(network, 1, 2)
    first_ns, second_ns = arrivals(network, 2)
    assert first_ns == second_ns


def test_about_as_many_packets_are_lost_as_was_said():
    network = medium(rate_bps=1e11, loss_ppm=100_000)
    for number in range(2000):
        send(network, 1, 2, now_ns=number * MS)
    assert 100 < network.counts.lost < 320
