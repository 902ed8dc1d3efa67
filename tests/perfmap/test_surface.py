"""Interpolation between measured points: exact where they rise, and never falling."""

from itertools import pairwise

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
