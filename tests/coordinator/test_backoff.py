import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.coordinator.backoff import FIRST_PAUSE_S, LONGEST_PAUSE_S, Backoff

moments = st.floats(0, 1e6)


def after(failures, key="seq:2:full", now_s=100.0):
    state = Backoff()
    for _ in range(failures):
        state = state.failed(key, "timed out", now_s)
    return state


def test_a_failure_is_explained_until_its_pause_is_over():
    state = after(1)
    assert state.paused(100.0) == {"seq:2:full": f"timed out; tried again in {FIRST_PAUSE_S:.0f} s"}
    assert state.paused(100.0 + FIRST_PAUSE_S) == {}


def test_failures_in_a_row_are_counted():
    assert "timed out, 3 times in a row; tried again in 20 s" in after(3).paused(100.0).values()


@given(st.integers(1, 200), moments)
def test_pauses_grow_and_end(failures, now_s):
    def pause_s(count):
        return after(count, now_s=now_s).troubles["seq:2:full"].until_s - now_s

    assert FIRST_PAUSE_S - 1e-3 <= pause_s(failures) <= LONGEST_PAUSE_S + 1e-3
    assert pause_s(failures) <= pause_s(failures + 1) + 1e-3
    assert pause_s(failures + 1) == pytest.approx(
        min(LONGEST_PAUSE_S, 2 * pause_s(failures)), abs=1e-3
    )


@given(st.integers(1, 8), moments)
def test_a_success_ends_it(failures, now_s):
    state = after(failures).worked("seq:2:full")
    assert state == Backoff()
    assert state.failed("seq:2:full", "timed out", now_s).troubles["seq:2:full"].failures == 1


def test_things_are_told_apart():
    state = after(2).failed("node1", "failed: no memory", 100.0)
    assert set(state.paused(100.0)) == {"seq:2:full", "node1"}
    assert set(state.worked("seq:2:full").paused(100.0)) == {"node1"}
    assert state.worked("node2") is state
