"""Turns: everybody once a round, nobody favoured."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from prism.profiler.turns import take_turns

NAMES = st.lists(st.integers(), unique=True, max_size=6)


@given(NAMES, st.integers(0, 20))
def test_everybody_has_one_turn_in_every_round(names, rounds):
    orders = list(take_turns(names, rounds))
    assert len(orders) == (rounds if names else 0)
    assert all(sorted(order) == sorted(names) for order in orders)


@given(NAMES.filter(bool), st.integers(1, 4))
def test_every_place_is_everybodys_equally_often(names, cycles):
    orders = list(take_turns(names, cycles * len(names)))
    assert orders[0] == tuple(names)
    for place in zip(*orders, strict=True):
        assert Counter(place) == dict.fromkeys(names, cycles)
