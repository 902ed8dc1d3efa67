"""The queue: order, bounds, and that nothing starves; pure."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from prism.server.fairness import Entry, Line

REQUESTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(("x", "y")), st.integers(1, 6)),
    min_size=1,
    max_size=24,
)


def entries_of(requests):
    return [Entry(number, *request) for number, request in enumerate(requests, start=1)]


def line_of(entries):
    line = Line()
    for entry in entries:
        line = line.added(entry)
    return line


def batches_of(line, limit):
    """Yield what leaves the queue, batch by batch, until nothing more may."""
    while batch := line.next(limit):
        yield batch
        line = line.served(batch)
    assert not len(line)


def test_a_client_with_many_requests_keeps_nobody_waiting():
    many = [Entry(number, "greedy", "x", 1) for number in range(1, 9)]
    line = line_of([*many, Entry(9, "modest", "y", 1)])
    first, second, *_ = batches_of(line, lambda key: 4)
    assert [entry.number for entry in first] == [1, 2, 3, 4]
    assert [entry.client for entry in second] == ["modest"]


def test_clients_share_a_batch():
    line = line_of([*(Entry(number, "a", "x", 1) for number in range(1, 9)), Entry(9, "b", "x", 1)])
    assert [entry.number for entry in line.next(lambda key: 4)] == [1, 9, 2, 3]


def test_a_key_that_may_not_start_holds_up_nobody():
    line = line_of([Entry(1, "a", "x", 1), Entry(2, "a", "y", 1)])
    assert [entry.number for entry in line.next(lambda key: 8 * (key == "y"))] == [2]
    assert line.next(lambda key: 0) == ()


def test_a_request_larger_than_any_batch_is_one():
    line = line_of([Entry(1, "a", "x", 99), Entry(2, "a", "x", 1)])
    assert [entry.number for entry in line.next(lambda key: 4)] == [1]


def test_a_larger_one_that_does_not_fit_does_not_keep_a_smaller_one_out():
    line = line_of([Entry(1, "a", "x", 3), Entry(2, "b", "x", 3), Entry(3, "c", "x", 1)])
    assert [entry.number for entry in line.next(lambda key: 4)] == [1, 3]


def test_what_nobody_waits_for_is_told():
    line = line_of([Entry(1, "a", "x", 1, until_s=5.0), Entry(2, "a", "x", 1)])
    assert [entry.number for entry in line.expired(5.0)] == [1]
    assert [entry.number for entry in line.without({1})] == [2]
    assert line.rows == 2 and line.without({1}).rows_of("x") == 1


@given(REQUESTS, st.integers(1, 8))
def test_each_leaves_once_within_the_bounds(requests, limit):
    entries = entries_of(requests)
    batches = list(batches_of(line_of(entries), lambda key: limit))
    left = Counter(entry.number for batch in batches for entry in batch)
    assert left == Counter(entry.number for entry in entries)
    for batch in batches:
        assert len({entry.key for entry in batch}) == 1
        assert len(batch) == 1 or sum(entry.rows for entry in batch) <= limit


@given(REQUESTS)
def test_of_one_client_and_key_the_order_is_that_of_arrival(requests):
    entries = [Entry(number, client, key, 1) for number, (client, key, _) in enumerate(requests)]
    left = [entry for batch in batches_of(line_of(entries), lambda key: 3) for entry in batch]
    for client, key in {(entry.client, entry.key) for entry in entries}:
        numbers = [entry.number for entry in left if (entry.client, entry.key) == (client, key)]
        assert numbers == sorted(numbers)


@given(REQUESTS, st.data())
def test_nothing_starves_while_others_keep_coming(requests, data):
    """A request that waits leads or joins within as many batches as stand before it."""
    entries = entries_of(requests)
    line, victim = line_of(entries), entries[-1]
    clients = len({entry.client for entry in entries} | set("abc"))
    before = sum(entry.client == victim.client for entry in entries)
    for number in range(clients * before):
        batch = line.next(lambda key: 4)
        line = line.served(batch)
        if victim in batch:
            return
        client, key = data.draw(st.sampled_from("abc")), data.draw(st.sampled_from(("x", "y")))
        line = line.added(Entry(100 + number, client, key, 1))
    raise AssertionError(f"{victim} still waits after {clients * before} batches")
