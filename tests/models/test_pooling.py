"""Pooling: the formulas of sentence-transformers, whole and in parts of any size."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism.models.pooling import Pooling
from prism.output_form import MODES
from prism.partition.spans import Span

WIDTH = 3


def by_hand(mode, rows_ND, real_N):
    """Return one sample's vector, written as a sentence would say it."""
    real = [row for row, counts in zip(rows_ND, real_N, strict=True) if counts]
    places = [place + 1 for place, counts in enumerate(real_N) if counts]
    total = sum(real, torch.zeros(WIDTH))
    if mode == "cls":
        return real[0]
    if mode == "lasttoken":
        return real[-1]
    if mode == "max":
        return torch.stack(real).amax(0)
    if mode == "mean":
        return total / len(real)
    if mode == "mean_sqrt_len_tokens":
        return total / math.sqrt(len(real))
    weighted = [place * row for place, row in zip(places, real, strict=True)]
    return sum(weighted, torch.zeros(WIDTH)) / sum(places)


@st.composite
def requests(draw):
    length, batch = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    masks = st.lists(st.booleans(), min_size=length, max_size=length).filter(any)
    real_BN = torch.tensor(draw(st.lists(masks, min_size=batch, max_size=batch)))
    cuts = sorted(draw(st.sets(st.integers(1, length - 1)))) if length > 1 else []
    bounds = [0, *cuts, length]
    spans = [Span(*bounds[i : i + 2]) for i in range(len(bounds) - 1)]
    seed = draw(st.integers(0, 2**31))
    rows_BND = torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(seed))
    modes = draw(st.lists(st.sampled_from(MODES), unique=True, min_size=1).map(tuple))
    return rows_BND, real_BN, spans, modes


@given(requests(), st.booleans())
def test_parts_of_any_size_make_the_vectors_of_the_formulas(request, normalise):
    rows_BND, real_BN, spans, modes = request
    expected = torch.stack(
        [
            torch.cat([by_hand(mode, rows, real) for mode in modes])
            for rows, real in zip(rows_BND, real_BN.tolist(), strict=True)
        ]
    )
    if normalise:
        expected = expected / expected.norm(dim=1, keepdim=True)
    # What a node computes for padding is nobody's business, even if it is no number.
    rows_BND = rows_BND.masked_fill(~real_BN[:, :, None], float("nan"))
    pooling = Pooling(modes, normalise, real_BN)
    parts = [
        pooling.part(rows_BND[:, span.start : span.stop], span, rows_BND.shape[1]) for span in spans
    ]
    torch.testing.assert_close(pooling.join(torch.cat(parts, 1)), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooling.whole(rows_BND), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_without_a_mask_every_token_counts(mode):
    rows_BND = torch.randn(2, 5, WIDTH)
    expected = torch.stack([by_hand(mode, rows, [True] * 5) for rows in rows_BND])
    torch.testing.assert_close(Pooling((mode,), False, None).whole(rows_BND), expected)


def test_half_precision_is_pooled_in_float32():
    rows_BND = torch.full((1, 3000, WIDTH), 100.0, dtype=torch.float16)  # their sum is no float16
    pooled = Pooling(("mean",), False, None).whole(rows_BND)
    torch.testing.assert_close(pooled, torch.full((1, WIDTH), 100.0))


def test_the_first_row_is_enough_for_a_class_token_that_is_there():
    left = torch.tensor([[True, True], [False, True]])
    assert Pooling(("cls",), False, None).needs_first_row_only()
    assert Pooling(("cls",), False, left[:1]).needs_first_row_only()
    assert not Pooling(("cls",), False, left).needs_first_row_only()
    assert not Pooling(("cls", "mean"), False, None).needs_first_row_only()
