"""When it is worth coming back; pure."""

from hypothesis import given
from hypothesis import strategies as st

from prism.server.throughput import Throughput


def test_it_follows_what_was_answered_lately():
    state = Throughput()
    assert state.retry_after_s(100, 0.0) == 1.0
    for second in range(1, 6):
        state = state.after(10, float(second))
    assert 6.0 < state.retry_after_s(100, 6.0) < 15.0
    assert state.retry_after_s(100, 60.0) == 1.0  # long ago


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 64))), st.integers(0, 10_000))
def test_it_is_a_time_that_a_client_can_wait(ends, waiting):
    state, now_s = Throughput(), 0.0
    for later_s, rows in ends:
        now_s += later_s
        state = state.after(rows, now_s)
    assert 1.0 <= state.retry_after_s(waiting, now_s) <= 60.0
