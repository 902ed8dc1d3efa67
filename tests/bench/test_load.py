"""The figures of a run under load; no nodes."""

import pytest
from bench.load import Ended, level_of, percentile_ms, poisson


def test_arrivals_have_their_rate_and_are_the_same_again():
    moments_s = poisson(50.0, 40.0, seed=1)
    assert moments_s == sorted(moments_s) == poisson(50.0, 40.0, seed=1)
    assert len(moments_s) == pytest.approx(2000, rel=0.1)
    assert poisson(50.0, 40.0, seed=2) != moments_s


def test_percentiles_are_values_that_were_seen():
    assert percentile_ms([0.1, 0.2, 0.3, 0.4], 0.5) == pytest.approx(200.0)
    assert percentile_ms([0.1, 0.2, 0.3, 0.4], 0.99) == pytest.approx(400.0)
    assert percentile_ms([0.1], 0.5) == pytest.approx(100.0)
    assert percentile_ms([], 0.5) is None


def test_only_answers_in_time_are_good_and_nothing_is_lost():
    ended = [Ended(0.1, "local", 1), Ended(0.9, "local", 3), Ended(0.0, refused=True), Ended(2.0)]
    level = level_of("local", 0.5, 0.4, [1.0, 2.0, 3.0, 4.0], (ended, 4.0))
    assert (level.answered_per_s, level.good_per_s, level.offered_per_s) == (0.5, 0.25, 1.0)
    assert (level.refused, level.failed, level.mean_rows) == (1, 1, 2.0)
    assert level.plans == {"local": 2}
