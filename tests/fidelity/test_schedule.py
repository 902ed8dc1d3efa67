"""The learning rate over a training, and the order in which samples train."""

from hypothesis import given
from hypothesis import strategies as st

from prism.fidelity.schedule import rate_factor, rows_of_step


def test_the_learning_rate_warms_up_and_falls():
    rates = [rate_factor(step / 1000) for step in range(1000)]
    peak = rates.index(max(rates))
    assert peak == 50 and rates[peak] == 1
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) == 0.01


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**31 - 1))
def test_every_sample_trains_equally_often(count, batch, seed):
    steps = [rows_of_step(step, batch, count, seed) for step in range(count)]
    seen = [row for rows in steps for row in rows]
    assert all(len(rows) == batch for rows in steps)
    assert all(seen.count(row) == batch for row in range(count))
    for epoch in range(batch):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))
