"""Losses and their intervals: published figures, and what holds for any counts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from prism.fidelity.metrics import (
    lost_accuracy,
    lost_agreement,
    mean_loss,
    wilson_interval,
)

COUNTS = st.integers(1, 2000).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.just(n)).flatmap(
        lambda pair: st.tuples(st.just(pair[0]), st.integers(0, n - pair[0]), st.just(n))
    )
)


def test_the_interval_of_a_share_is_the_published_one():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


def test_a_paired_interval_is_walds_with_half_a_sample_more_in_each_cell():
    lost, gained, count = 132, 107, 1144
    differences = np.repeat([1, -1, 0], [2 * lost + 1, 2 * gained + 1, 2 * (count - 239) + 2])
    half = 1.959964 * differences.std() / math.sqrt(count + 2)
    loss = lost_accuracy(lost, gained, count)
    assert loss.value == pytest.approx(25 / 1144)
    expected = (differences.mean() - half, differences.mean() + half)
    assert (loss.low, loss.high) == pytest.approx(expected, abs=1e-6)


@given(COUNTS)
def test_a_paired_interval_holds_its_difference_and_mirrors(counts):
    lost, gained, count = counts
    loss, mirrored = lost_accuracy(lost, gained, count), lost_accuracy(gained, lost, count)
    assert -1 <= loss.low <= loss.value <= loss.high <= 1
    assert (mirrored.low, mirrored.high) == pytest.approx((-loss.high, -loss.low))


@given(COUNTS)
def test_an_interval_holds_its_share_and_mirrors(counts):
    correct, _, count = counts
    low, high = wilson_interval(correct, count)
    assert 0 <= low <= correct / count + 1e-12 and correct / count - 1e-12 <= high <= 1
    assert wilson_interval(count - correct, count) == pytest.approx((1 - high, 1 - low))


@given(st.lists(st.integers(0, 1), min_size=1, max_size=50))
def test_agreement_of_single_answers_is_a_share(same):
    loss = lost_agreement(same, [1] * len(same))
    assert (loss.low, loss.high) == wilson_interval(len(same) - sum(same), len(same))
    assert loss.value == pytest.approx(1 - sum(same) / len(same))


@given(st.lists(st.integers(1, 9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))))
def test_answers_of_one_text_count_as_a_cluster(pairs):
    pairs = [*pairs, (3, 4)]
    same, of = map(list, zip(*pairs, strict=True))
    loss = lost_agreement(same, of)
    low, high = wilson_interval(sum(of) - sum(same), sum(of))
    assert 0 <= loss.low <= low + 1e-12 and high - 1e-12 <= loss.high <= 1


def test_texts_that_are_all_wrong_or_all_right_widen_the_interval():
    alike = lost_agreement([5] * 20, [10] * 20)
    split = lost_agreement([10, 0] * 10, [10] * 20)
    assert alike.value == split.value == 0.5
    assert split.high - split.low > 2.5 * (alike.high - alike.low)
    # As many texts as answers, so to say: the interval is about that of 20 answers.
    low, high = wilson_interval(10, 20)
    assert split.high - split.low == pytest.approx(high - low, rel=0.2)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 9, 30, 500])
def test_the_interval_of_a_mean_is_students(count):
    losses = np.random.default_rng(count).normal(0.1, 0.02, count)
    half = student.ppf(0.975, count - 1) * losses.std(ddof=1) / math.sqrt(count)
    loss = mean_loss(losses.tolist())
    assert loss.value == pytest.approx(losses.mean())
    assert loss.high - loss.value == pytest.approx(half, rel=2e-3)
    assert loss.value - loss.low == pytest.approx(half, rel=2e-3)


def test_one_sample_says_nothing_of_the_spread():
    assert (mean_loss([0.1]).low, mean_loss([0.1]).high) == (0.0, 1.0)
    assert lost_agreement([9], [10]).high == 1.0
