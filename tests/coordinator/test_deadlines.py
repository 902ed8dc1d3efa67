import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.coordinator.deadlines import Deadline, Expectation, RunTimes

PLAN = "seq:2:full node0+node1"
seconds = st.floats(1e-4, 100.0)
sizes = st.integers(1, 64)


def test_before_anything_is_known_there_is_much_time():
    assert RunTimes().expected(PLAN, 1, 197) is None
    assert Deadline().answer_s > 600 and Deadline().exchange_s >= 30


def test_a_prediction_is_enough():
    expected = RunTimes().expected(PLAN, 1, 197, predicted_s=4.0)
    assert expected == Expectation(4.0)
    assert 8.0 <= expected.deadline().exchange_s <= expected.deadline().answer_s <= 30.0


@given(seconds, seconds)
def test_the_slower_of_prediction_and_history_counts(took_s, predicted_s):
    times = RunTimes().took(PLAN, 1, 197, took_s)
    assert times.expected(PLAN, 1, 197, predicted_s).seconds == max(took_s, predicted_s)


@given(seconds)
def test_short_runs_have_a_floor(took_s):
    deadline = RunTimes().took(PLAN, 1, 197, took_s).expected(PLAN, 1, 197).deadline()
    assert deadline.exchange_s >= 2.0 and deadline.answer_s >= 4.0
    assert deadline.answer_s >= 3.0 * took_s


@given(seconds, sizes, sizes)
def test_a_larger_request_is_given_more_time(took_s, batch, more):
    times = RunTimes().took(PLAN, batch, 100, took_s)
    small, large = times.expected(PLAN, batch, 100), times.expected(PLAN, batch + more, 100)
    longer = times.expected(PLAN, batch, 100 + more)
    assert small.seconds < large.seconds and small.seconds < longer.seconds


@given(seconds, st.floats(1.5, 10.0))
def test_runs_that_scatter_are_given_more_time(took_s, factor):
    steady = scattered = RunTimes().took(PLAN, 1, 197, took_s)
    for turn in range(6):
        steady = steady.took(PLAN, 1, 197, took_s)
        scattered = scattered.took(PLAN, 1, 197, took_s * (factor if turn % 2 else 1.0))
    calm, wild = steady.expected(PLAN, 1, 197), scattered.expected(PLAN, 1, 197)
    assert calm.spread < 1e-6 < wild.spread
    assert wild.deadline().answer_s >= calm.deadline().answer_s


@given(seconds, st.floats(0.5, 60.0))
def test_a_run_that_was_given_up_gets_longer_the_next_time(took_s, after_s):
    times = RunTimes().took(PLAN, 1, 197, took_s)
    after = times.given_up(PLAN, 1, 197, after_s)
    assert after.expected(PLAN, 1, 197).seconds >= 2 * after_s
    assert after.expected(PLAN, 1, 197).seconds >= times.expected(PLAN, 1, 197).seconds
    assert RunTimes().given_up(PLAN, 1, 197, after_s).expected(PLAN, 1, 197).seconds > after_s


@given(seconds, seconds)
def test_a_caller_in_a_hurry_shortens_the_limits(took_s, left_s):
    deadline = Expectation(took_s).deadline().at_most(left_s)
    assert deadline.answer_s <= left_s and deadline.exchange_s <= left_s


def test_plans_are_told_apart():
    times = RunTimes().took(PLAN, 1, 197, 50.0)
    assert times.expected("local node0", 1, 197) is None


@given(seconds)
def test_rows_may_be_under_way_for_as_long_as_the_run_may_take(took_s):
    deadline = RunTimes().took(PLAN, 1, 197, took_s).expected(PLAN, 1, 197).deadline()
    assert deadline.of_node(exchanges=True) == deadline.exchange_s
    assert deadline.of_node(exchanges=False) == deadline.answer_s > deadline.exchange_s


def test_large_and_small_requests_in_turn_do_not_raise_each_other():
    times = RunTimes()
    for _ in range(50):
        times = times.took(PLAN, 300, 17, 3.0).took(PLAN, 1, 17, 0.01)
    assert times.expected(PLAN, 300, 17).seconds == pytest.approx(3.0)
    assert times.expected(PLAN, 1, 17).seconds == pytest.approx(0.01)
    assert times.expected(PLAN, 2, 17).seconds == pytest.approx(0.02)
