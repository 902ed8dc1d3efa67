"""Helpers are given the form of their input that is fewer bytes, all of them the same form."""

from hypothesis import given
from hypothesis import strategies as st

from prism.partition.own_input import helper_input_bytes, travels_in_parts
from prism.plan import ModelShape, Plan

VIT = ModelShape("vit", 12, 768, 768, causal=False, rotary=False, max_length=197)
LLAMA = ModelShape("llama", 30, 576, 384, causal=True, rotary=True, max_length=2048)
PIXELS = 3 * 224 * 224


@given(
    nodes=st.integers(2, 6),
    length=st.integers(6, 2000),
    means=st.none() | st.integers(1, 40),
    sample_bytes=st.integers(1, 10**7),
)
def test_helpers_get_no_more_than_the_whole_input_in_all(nodes, length, means, sample_bytes):
    plan = Plan("sequence", count=nodes, means=means)
    parts = helper_input_bytes(plan, VIT, length, sample_bytes)
    assert 0 < sum(parts) <= (nodes - 1) * sample_bytes
    in_parts = travels_in_parts(plan, VIT, length, sample_bytes)
    assert in_parts or parts == [sample_bytes] * (nodes - 1)


def test_half_an_image_and_ten_means_are_less_than_the_image():
    for text, counts in (("seq:2:L10:f16", 0), ("seq:2:C10:f16", 1)):
        plan = Plan.parse(text)
        assert travels_in_parts(plan, VIT, 197, PIXELS)
        (own,) = helper_input_bytes(plan, VIT, 197, PIXELS)
        assert own == PIXELS * 98 / 197 + 10 * (768 + counts) * 2


def test_all_rows_are_more_than_the_image():
    assert not travels_in_parts(Plan.parse("seq:2:full"), VIT, 197, PIXELS)


def test_token_ids_rotary_models_and_plans_that_cut_no_positions_get_all():
    assert not travels_in_parts(Plan.parse("seq:2:L1"), VIT, 197, 8 * 197)
    assert not travels_in_parts(Plan.parse("seq:2:L1"), LLAMA, 197, PIXELS)
    assert not travels_in_parts(Plan.parse("batch:2"), VIT, 197, PIXELS)
