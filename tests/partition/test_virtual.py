"""The one big bias that hides from a row what its partition could not see."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prism.partition.virtual import VirtualPass

NEVER = -math.inf


def entered(sizes, real, causal, full=False):
    forward_pass = VirtualPass(
        lambda length: sizes,
        full=full,
        clusters=False,
        lag=0,
        wire=torch.float32,
        causal=causal,
        rotary=False,
        real_BN=real,
    )
    rows = sum(map(sum, sizes))
    hidden = torch.randn(1 if real is None else len(real), rows, 4)
    assert forward_pass.enter(hidden, nn.Identity()) is hidden
    return forward_pass


def visible(sizes, real, causal):
    """Return the bias by going through rows, partitions and segments one by one."""
    places = [place for place, partition in enumerate(sizes) for _ in range(sum(partition))]
    segments, start = [], 0
    for place, partition in enumerate(sizes):
        for size in partition:
            segments.append((place, range(start, start + size)))
            start += size
    rows = len(places)
    batch = 1 if real is None else len(real)
    bias = torch.full((batch, 1, rows, rows + len(segments)), NEVER)
    for b in range(batch):
        is_real = [real is None or bool(real[b, i]) for i in range(rows)]
        for i in range(rows):
            for j in range(rows):
                if places[i] == places[j] and is_real[j] and not (causal and j > i):
                    bias[b, 0, i, j] = 0.0
            for c, (place, inside) in enumerate(segments):
                count = sum(is_real[j] for j in inside)
                if count and (place < places[i] if causal else place != places[i]):
                    bias[b, 0, i, rows + c] = math.log(count)
    return bias


@st.composite
def splits(draw):
    partition = st.lists(st.integers(1, 3), min_size=1, max_size=3)
    sizes = draw(st.lists(partition, min_size=2, max_size=3))
    rows = sum(map(sum, sizes))
    flags = st.lists(st.booleans(), min_size=rows, max_size=rows)
    real = draw(st.none() | st.lists(flags, min_size=1, max_size=2).map(torch.tensor))
    return sizes, real, draw(st.booleans())


@given(splits())
def test_bias_equals_brute_force(split):
    torch.testing.assert_close(entered(*split).bias(None), visible(*split))


def test_full_exchange_keeps_the_mask_of_the_model():
    sizes = [(1, 1), (1, 1, 1)]
    window = (torch.arange(5)[:, None] - torch.arange(5)).abs() <= 1
    for mask in (window[None, None], torch.zeros(1, 1, 5, 5).masked_fill(~window, NEVER)):
        bias = entered(sizes, None, causal=False, full=True).bias(mask)
        seen = bias if bias.dtype == torch.bool else bias == 0
        own, others = seen[0, 0].split(5, dim=1)
        assert torch.equal(own | others, window)
        assert own[1, 2:].sum() == 0 and others[1].tolist() == [False, False, True, False, False]


def test_lag_shows_the_means_of_the_block_before():
    forward_pass = VirtualPass(
        lambda length: [(1, 1), (2,)],
        full=False,
        clusters=False,
        lag=1,
        wire=torch.float32,
        causal=False,
        rotary=False,
        real_BN=None,
    )
    inputs = [torch.randn(1, 4, 2) for _ in range(4)]
    forward_pass.enter(inputs[0], nn.Identity())
    for index, source in enumerate([0, 0, 1, 2]):
        if index:
            forward_pass.before_block(index, inputs[index], nn.Identity())
        x = inputs[source][0]
        expected = torch.stack([x[0], x[1], x[2:].mean(0)])
        torch.testing.assert_close(forward_pass.context(index)[0], expected)
