"""Interpolation between measured points: exact where they rise, and never falling."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.perfmap import Surface


def test_points_that_rise_are_kept_and_joined_by_lines():
    surface = Surface({(1, 10): 1.0, (4, 10): 4.0, (1, 20): 2.0, (4, 20): 8.0})
    assert [surface.at(1, 10), surface.at(4, 20)] == [1.0, 8.0]
    assert surface.at(2, 10) == pytest.approx(2.0)
    assert surface.at(4, 15) == pytest.approx(6.0)
    assert surface.at(6, 10) == pytest.approx(6.0)
    assert not surface.extrapolates(4, 15)
    assert surface.extrapolates(5, 15) and surface.extrapolates(4, 21)


def test_a_dip_is_corrected_to_the_middle():
    surface = Surface({(1, 1): 1.0, (2, 1): 5.0, (3, 1): 3.0, (4, 1): 6.0})
    assert [surface.at(batch, 1) for batch in (1, 2, 3, 4)] == [1.0, 4.0, 4.0, 6.0]


values = st.floats(0, 1e3)
knots = st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True)


@given(batches=knots, lengths=knots, data=st.data())
def test_a_surface_never_falls(batches, lengths, data):
    points = {(b, n): data.draw(values) for b in batches for n in lengths}
    surface = Surface(points)
    batch, length = data.draw(st.integers(1, 99)), data.draw(st.integers(1, 99))
    here = surface.at(batch, length)
    tolerance = 1e-9 * (1 + here)
    assert here >= 0
    assert surface.at(batch + data.draw(st.integers(1, 9)), length) >= here - tolerance
    assert surface.at(batch, length + data.draw(st.integers(1, 9))) >= here - tolerance


@given(points=st.dictionaries(st.tuples(st.integers(1, 9), st.integers(1, 9)), values, min_size=1))
def test_a_grid_with_gaps_stays_finite_and_never_falls_in_batch(points):
    surface = Surface(points)
    for length in (1, 4, 9):
        along = [surface.at(batch, length) for batch in range(1, 12)]
        assert all(b >= a - 1e-9 * (1 + a) for a, b in pairwise(along))


@given(
    fixed=st.floats(0, 10),
    by_length=st.lists(st.floats(0.01, 10), min_size=4, max_size=4),
    measured=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))),
)
def test_gaps_of_a_product_of_batch_and_length_are_filled_with_it(fixed, by_length, measured):
    """The longest has every batch size, and every length has one: the rest follows."""
    batches, lengths = (1, 2, 6, 16), (32, 100, 197, 512)
    by_length = list(accumulate(by_length))
    truth = {
        (b, n): (fixed + b) * value
        for b in batches
        for n, value in zip(lengths, by_length, strict=True)
    }
    measured |= {(b, 3) for b in range(4)} | {(3 - n, n) for n in range(4)}
    surface = Surface(
        {(batches[b], lengths[n]): truth[batches[b], lengths[n]] for b, n in measured}
    )
    for (batch, length), value in truth.items():
        assert surface.at(batch, length) == pytest.approx(value)


def test_what_grows_more_at_longer_lengths_is_filled_between_its_neighbours():
    """A length measured at one batch size only is not continued in proportion, by 16."""
    points = {(1, 100): 1.0, (16, 100): 4.0, (1, 300): 3.0, (16, 300): 24.0, (1, 200): 2.0}
    assert Surface(points).at(16, 200) == pytest.approx(2.0 * 6.0)


def test_the_longest_length_is_continued_in_proportion():
    points = {(1, 100): 1.0, (16, 100): 4.0, (1, 200): 2.0}
    assert Surface(points).at(16, 200) == pytest.approx(2.0 * 16)


def test_next_to_nothing_grows_no_more_than_in_proportion():
    points = {(1, 100): 1.0, (4, 100): 2.0, (1, 200): 1e-9, (4, 200): 5.0, (1, 150): 1.0}
    assert Surface(points).at(4, 150) <= 4.0


def test_what_takes_no_time_elsewhere_tells_nothing_of_growth():
    points = {(1, 100): 2.0, (1, 200): 0.0, (4, 200): 20.0}
    assert Surface(points).at(4, 100) == pytest.approx(8.0)
