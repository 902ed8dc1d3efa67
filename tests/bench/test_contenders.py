"""Contenders take turns, and are compared within a round."""

from itertools import count

import pytest

from prism.bench.contenders import Alternation, alternate, median_part_ms, quartiles
from prism.plan import Plan
from prism.record import RunRecord


def record(**parts):
    return RunRecord(node="node0", plan=Plan(), batch=1, length=1, total_s=1.0, **parts)


def test_each_warms_up_once_and_then_runs_once_a_round_in_changing_order():
    ran, told = [], []

    def contender(name, made):
        def run():
            ran.append(name)
            return made

        return run

    done = alternate({"a": contender("a", record()), "b": contender("b", None)}, 3, told.append)
    assert ran == ["a", "b", *"ab", *"ba", *"ab"]
    assert told == [1, 2, 3]
    assert [len(done.seconds[name]) for name in "ab"] == [3, 3]
    assert [len(done.records[name]) for name in "ab"] == [3, 0]


def test_a_speedup_is_taken_within_a_round():
    # The machine was twice as busy in the second round and in the third one again.
    done = Alternation({"a": [1.0, 2.0, 4.0], "b": [2.0, 4.0, 8.0]}, {"a": [], "b": []})
    assert done.speedup("a", "b") == (2.0, 2.0, 2.0)
    assert done.speedup("b", "a") == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], (3.0, 3.0, 3.0)), ([1.0, 2.0, 3.0, 4.0, 5.0], (2.0, 3.0, 4.0))],
)
def test_quartiles(values, expected):
    assert quartiles(values) == expected


def test_parts_are_medians_in_milliseconds_and_unknown_without_records():
    numbers = count(1)
    records = [record(comm_s=next(numbers) / 1e3) for _ in range(3)]
    assert median_part_ms(records, "comm") == 2.0
    assert median_part_ms([], "comm") is None
    done = Alternation({"a": [1.0] * 3}, {"a": records})
    assert done.part_ms("a", "comm") == 2.0
