from hypothesis import given
from hypothesis import strategies as st

from prism.coordinator.deadlines import Deadline, Pace

SIZES = st.integers(1, 1000)
SECONDS = st.floats(0, 1e4)


def test_a_first_run_has_all_the_time_it_may_need():
    assert Pace().deadline("seq:2:full", 4, 100) == Deadline()


@given(SIZES, SIZES, SECONDS)
def test_a_later_run_is_given_a_multiple_of_what_the_last_one_took(batch, length, took_s):
    pace = Pace()
    pace.note("local", batch, length, 1e9)
    pace.note("local", batch, length, took_s)
    deadline = pace.deadline("local", batch, length)
    assert deadline.exchange_s == max(2.0, 2 * took_s)
    assert deadline.answer_s > max(deadline.exchange_s, 5 * took_s)
    assert pace.deadline("batch:2", batch, length) == Deadline()


@given(SIZES, SIZES, SECONDS, st.tuples(SIZES, SIZES), st.tuples(SIZES, SIZES))
def test_larger_requests_are_never_given_less(batch, length, took_s, a, b):
    pace = Pace()
    pace.note("local", batch, length, took_s)
    small = pace.deadline("local", min(a[0], b[0]), min(a[1], b[1]))
    for size in (a, b, (batch, length)):
        large = pace.deadline("local", max(size[0], small_of(a, b)[0]), max(size[1], a[1], b[1]))
        assert small.exchange_s <= large.exchange_s and small.answer_s <= large.answer_s


def small_of(a, b):
    return min(a[0], b[0]), min(a[1], b[1])


def test_twice_the_batch_takes_twice_as_long_and_twice_the_length_four_times():
    pace = Pace()
    pace.note("local", 4, 10, 10.0)
    assert pace.deadline("local", 8, 10).exchange_s == 40.0
    assert pace.deadline("local", 4, 20).exchange_s == 80.0
