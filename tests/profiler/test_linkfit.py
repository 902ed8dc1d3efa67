import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.profiler.linkfit import LinkTimes, fit_line, fit_link

SIZES = (1_000, 16_000, 64_000, 128_000)


def exchanged(bandwidth_bps, latency_s, overhead_s, nodes=2, shared=False, noise=0.0, seed=0):
    """What a link of known bandwidth and latency does to exchanges of all nodes at once."""
    jitter = random.Random(seed)

    def took(bits):
        return latency_s + overhead_s + bits / bandwidth_bps * (1 + jitter.uniform(-noise, noise))

    copies = nodes - 1
    in_line = copies * (nodes if shared else 1)
    return LinkTimes(
        nodes,
        SIZES,
        tuple(took(8 * size * in_line) for size in SIZES),
        tuple(took(8 * size * copies) for size in SIZES),
        latency_s,
    )


@given(
    st.floats(1e6, 1e9), st.floats(0, 0.05), st.integers(2, 8), st.booleans(), st.integers(0, 99)
)
def test_a_known_link_is_found_again(bandwidth_bps, latency_s, nodes, shared, seed):
    link = fit_link(exchanged(bandwidth_bps, latency_s, 1e-4, nodes, shared, 0.02, seed))
    assert link.shared == shared
    assert link.bandwidth_bps == pytest.approx(bandwidth_bps, rel=0.1)
    # The noise of the longest transfer is all that can hide a latency.
    longest_s = 8 * SIZES[-1] * (nodes - 1) * (nodes if shared else 1) / bandwidth_bps
    assert link.latency_s == pytest.approx(latency_s, abs=1e-9 + 0.04 * longest_s)
    assert link.latency_s <= link.fixed_s


def test_one_disturbed_size_moves_nothing():
    sizes = (1, 2, 3, 4, 5)
    fixed, slope = fit_line(sizes, (12.0, 14.0, 90.0, 18.0, 20.0))
    assert (fixed, slope) == (10.0, 2.0)


def test_a_link_too_fast_to_be_timed_has_a_finite_bandwidth():
    link = fit_link(LinkTimes(2, SIZES, (1e-4,) * 4, (1e-4,) * 4, 1e-5))
    assert 0 < link.bandwidth_bps < float("inf")
    assert not link.shared
