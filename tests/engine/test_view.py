"""What one rank sees: its rows, whom it listens to, the means and the logits of the others."""

import math

import pytest
import torch

from prism.engine.view import PartitionView
from prism.plan import Plan

NEVER = -math.inf
CPU = torch.device("cpu")


def view(plan, rank, length, causal=False, real=None):
    return PartitionView(Plan.parse(plan), rank, length, causal=causal, real_BN=real, device=CPU)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_everybody_hears_everybody_unless_the_model_is_causal(rank):
    others = [other for other in (0, 1, 2) if other != rank]
    both = view("seq:3:L2", rank, 10)
    assert both.sources == both.listeners == others
    causal = view("seq:3:L2", rank, 10, causal=True)
    assert causal.sources == [other for other in others if other < rank]
    assert causal.listeners == [other for other in others if other > rank]


def test_unequal_parts_send_as_many_means_as_they_have_rows():
    seen = view("seq:3:L4:shares=3/1/2", 1, 17)
    assert [span.size for span in seen.spans] == [8, 3, 6]
    assert (seen.own.start, seen.own.stop) == (8, 11)
    assert [seen.payload_shape(rank, 2, 5) for rank in (0, 1, 2)] == [
        (2, 4, 5),
        (2, 3, 5),
        (2, 4, 5),
    ]
    clusters = view("seq:3:C4:shares=3/1/2", 1, 17)  # with their counts
    assert [clusters.payload_shape(rank, 2, 5)[1:] for rank in (0, 1)] == [(4, 6), (3, 6)]
    full = view("seq:3:full:shares=3/1/2", 1, 17)
    assert [full.payload_shape(rank, 1, 5)[1] for rank in (0, 1, 2)] == [8, 3, 6]


@pytest.mark.parametrize("means", ["L2", "C2", "full"])
def test_what_a_rank_sends_is_what_the_others_take_from_the_input(means):
    x = torch.randn(2, 17, 5)
    real = torch.ones(2, 17, dtype=torch.bool)
    real[1, 12:] = False
    views = [view(f"seq:3:{means}:shares=3/1/2", rank, 17, real=real) for rank in (0, 1, 2)]
    own = [x[:, each.own.start : each.own.stop] for each in views]
    sent = [each.payload(rows, each.groups(rows)) for each, rows in zip(views, own, strict=True)]
    for rank, each in enumerate(views):
        expected = torch.cat([sent[other] for other in each.sources], dim=1)
        seen = each.payloads_of_input(x, each.sources)
        assert torch.equal(torch.cat(list(seen.values()), dim=1), expected)
        assert sent[rank].shape == each.payload_shape(rank, 2, 5)


def test_the_first_partition_of_a_causal_model_needs_nobody():
    for means in ("L2", "C2"):
        first = view(f"seq:2:{means}", 0, 6, causal=True)
        assert not first.sources
        assert first.bias(None).shape == (1, 1, 3, 3)


def test_received_clusters_are_weighed_by_the_counts_beside_them():
    seen = view("seq:2:C2", 0, 6)
    received = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]]])
    assert torch.equal(seen.take(received), received[..., :2])
    expected = [0, 0, 0, math.log(3), NEVER]
    assert seen.bias(None).flatten().tolist() == pytest.approx(expected)


def test_means_are_weighed_by_their_real_tokens():
    real = torch.ones(1, 10, dtype=torch.bool)
    real[0, 7:] = False
    # Rows 0-3 | 4-6 | 7-9, two segments each: the last partition is padding alone.
    bias = view("seq:3:L2", 0, 10, real=real).bias(None)
    expected = [0, 0, 0, 0, math.log(2), math.log(1), NEVER, NEVER]
    assert bias.shape == (1, 1, 1, 8)
    assert bias.flatten().tolist() == pytest.approx(expected)


def test_causal_rows_see_earlier_own_rows_and_all_earlier_means():
    bias = view("seq:3:L1", 1, 6, causal=True).bias(None)
    two = math.log(2)
    assert bias.shape == (1, 1, 2, 3)
    assert bias.flatten().tolist() == pytest.approx([0, NEVER, two, 0, 0, two])


def test_full_exchange_cuts_the_mask_of_the_model_into_its_order():
    mask = torch.rand(2, 1, 7, 7) > 0.5
    seen = view("seq:3:full", 1, 7)  # rows 0-2 | 3-4 | 5-6
    expected = mask[:, :, [3, 4]][..., [3, 4, 0, 1, 2, 5, 6]]
    assert torch.equal(seen.bias(mask), expected)
    assert seen.bias(mask) is seen.bias(mask)  # cut once per request
    other = ~mask
    assert torch.equal(seen.bias(other), ~expected)
    assert seen.bias(None) is None
