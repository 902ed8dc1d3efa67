"""All waiting of the first node is booked where it came from, and none is made or lost."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.engine.strategies import STRATEGIES
from prism.engine.waiting import Report
from prism.plan import Plan
from prism.record import RunRecord

SECONDS = st.floats(0, 10)
PARTS = ("compute_s", "staging_s", "comm_s", "input_s", "output_s", "queue_s")


def report(*, begun_s=0.0, answered_s=20.0, first_wait_s=0.0, gather_s=0.0, **parts):
    record = RunRecord("node", Plan(), 1, 1, sum(parts.values()), **parts)
    return Report(record, begun_s, answered_s, first_wait_s, gather_s)


def booked(strategy, first, others, ended_s):
    """Return what was added to each part that changed."""
    record = STRATEGIES[strategy].settle(first, others, ended_s)
    changes = {name: getattr(record, name) - getattr(first.record, name) for name in PARTS}
    return {name: change for name, change in changes.items() if change}


def test_what_follows_the_answer_is_output():
    assert booked("local", report(), [], 21.0) == {"output_s": 1.0}


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        # The peer began 3 s late for want of its input: of 5 s of waiting, 3 s were for that.
        ({"comm_s": 5.0, "first_wait_s": 4.0}, {"begun_s": 3.0}, {"comm_s": -3.0, "input_s": 3.0}),
        # It was late by more than we waited for it: the rest was hidden behind our own work.
        ({"comm_s": 5.0, "first_wait_s": 2.0}, {"begun_s": 3.0}, {"comm_s": -2.0, "input_s": 2.0}),
        # What we had computed ahead, we waited for at the end.
        (
            {"comm_s": 1.0, "first_wait_s": 1.0, "output_s": 9.0, "gather_s": 8.0},
            {"begun_s": 6.0},
            {"comm_s": -1.0, "input_s": 6.0, "output_s": -5.0},
        ),
        # It had its input 1 s after ours, and was busy with something else for 2 s.
        (
            {"comm_s": 5.0, "first_wait_s": 5.0},
            {"begun_s": 3.0, "queue_s": 2.0},
            {"comm_s": -3.0, "input_s": 1.0, "queue_s": 2.0},
        ),
        # It began with us: whatever we waited for was its work, or the link.
        ({"comm_s": 5.0, "first_wait_s": 5.0}, {"compute_s": 9.0}, {}),
        ({"comm_s": 5.0, "first_wait_s": 5.0}, {"begun_s": -1.0}, {}),
    ],
)
def test_rank_0_waits_for_peers_that_begin_late(first, other, expected):
    assert booked("sequence", report(**first), [report(**other)], 20.0) == expected


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"begun_s": 3.0}, {"input_s": 3.0, "output_s": 1.0}),
        ({"begun_s": 9.0}, {"input_s": 4.0}),
        ({"compute_s": 3.5}, {"comm_s": 2.5, "output_s": 1.5}),
        ({"begun_s": 3.0, "queue_s": 2.0}, {"input_s": 1.0, "queue_s": 2.0, "output_s": 1.0}),
        ({}, {"output_s": 4.0}),
    ],
)
def test_the_first_node_waits_for_the_last_rows(other, expected):
    first, last = report(compute_s=1.0), report(answered_s=24.0, **{"compute_s": 1.0, **other})
    early = report(begun_s=7.0, answered_s=10.0)
    assert booked("batch", first, [early, last], 24.0) == expected


REPORTS = st.builds(
    report,
    begun_s=SECONDS, answered_s=st.floats(10, 30), first_wait_s=SECONDS, gather_s=SECONDS,
    compute_s=SECONDS, staging_s=SECONDS, comm_s=SECONDS, input_s=SECONDS,
    output_s=st.floats(10, 20), queue_s=SECONDS,
)  # fmt: skip


@given(st.sampled_from(sorted(STRATEGIES)), REPORTS, st.lists(REPORTS, max_size=3), SECONDS)
def test_booking_moves_time_and_makes_none(strategy, first, others, joined_s):
    ended_s = max(each.answered_s for each in (first, *others)) + joined_s
    record = STRATEGIES[strategy].settle(first, others, ended_s)
    parts = {name: getattr(record, name) for name in PARTS}
    assert min(parts.values()) >= -1e-9
    own_s = sum(getattr(first.record, name) for name in PARTS)
    assert sum(parts.values()) == pytest.approx(own_s + ended_s - first.answered_s)
    assert record.compute_s == first.record.compute_s
    # Nothing else of the record changes.
    assert replace(record, **{name: getattr(first.record, name) for name in PARTS}) == first.record
