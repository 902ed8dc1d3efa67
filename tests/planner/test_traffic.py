"""Bytes, exchanges and transfer times of sequence plans."""

from dataclasses import replace

import pytest
from tests.planner.clusters import LINK, MODEL, PAYLOAD

from prism.errors import RequestError
from prism.perfmap import MapLink, Payload
from prism.plan import Plan
from prism.planner.traffic import (
    bytes_per_block,
    exchange_bytes,
    exchange_count,
    helper_input_bytes,
    needs_all_rows,
    output_row_bytes,
    transfer_s,
)
from prism.record import LinkState

ROW = 768 * 4


@pytest.mark.parametrize(
    ("text", "rows", "shared_rows"),
    [
        ("seq:2:L10", 10, 20),
        ("seq:2:full", 99, 197),
        ("seq:3:L10", 20, 60),
        ("seq:3:full", 132, 394),
        ("seq:2:L10:f16", 5, 10),
        ("seq:2:full:shares=9/1", 177, 197),
        ("seq:2:L50:shares=9/1", 50, 70),
    ],
)
def test_bytes_are_those_the_busiest_node_receives_or_all_on_the_air(text, rows, shared_rows):
    plan = Plan.parse(text)
    assert exchange_bytes(plan, MODEL, 1, 197, shared=False) == rows * ROW
    assert exchange_bytes(plan, MODEL, 4, 197, shared=True) == 4 * shared_rows * ROW


@pytest.mark.parametrize(
    ("text", "rows", "shared_rows"),
    [
        ("seq:2:C10", 10, 20),
        ("seq:2:C10:f16", 5, 10),
        ("seq:3:C10:lag1", 20, 60),
        ("seq:2:C50:shares=9/1", 50, 70),
    ],
)
def test_the_count_of_a_cluster_travels_with_its_mean(text, rows, shared_rows):
    plan, row = Plan.parse(text), (768 + 1) * 4
    assert exchange_bytes(plan, MODEL, 2, 197, shared=False) == 2 * rows * row
    assert exchange_bytes(plan, MODEL, 1, 197, shared=True) == shared_rows * row
    assert exchange_count(plan, MODEL, LINK) == 11 - plan.lag


def test_a_partition_smaller_than_its_segments_sends_its_rows():
    assert exchange_bytes(Plan.parse("seq:2:L10"), MODEL, 1, 6, shared=False) == 3 * ROW
    with pytest.raises(RequestError):
        exchange_bytes(Plan.parse("seq:3:L10"), MODEL, 1, 2, shared=False)


def test_the_first_block_is_free_unless_keys_are_rotated_or_the_map_was_blocking():
    rotary = replace(MODEL, rotary=True)
    blocking = MapLink(1e8, exchange="blocking")
    plan, lagged = Plan.parse("seq:2:L4"), Plan.parse("seq:2:L4:lag1")
    assert exchange_count(plan, MODEL, LINK) == 11
    assert exchange_count(lagged, MODEL, LINK) == 10
    assert exchange_count(plan, rotary, LINK) == 12
    assert exchange_count(plan, MODEL, blocking) == 12
    assert exchange_count(Plan(), MODEL, LINK) == 0
    assert exchange_count(lagged, replace(MODEL, blocks=1), LINK) == 0


def test_transfer_scales_the_fitted_cost_with_the_link():
    fitted = MapLink(100e6, 0.001, 0.003, per_byte_s=1e-7)
    assert transfer_s(10_000, fitted, fitted.state()) == pytest.approx(0.003 + 0.001)
    slower = LinkState(50e6, 0.004)
    assert transfer_s(10_000, fitted, slower) == pytest.approx(0.002 + 0.004 + 0.002)
    plain = MapLink(100e6)
    assert transfer_s(1_000_000, plain, plain.state()) == pytest.approx(0.08)


def test_bytes_per_block_are_those_of_the_busiest_node():
    assert bytes_per_block(Plan(), MODEL, 197) == 0
    assert bytes_per_block(Plan.parse("batch:2"), MODEL, 197) == 0
    assert bytes_per_block(Plan.parse("seq:2:L10:f16"), MODEL, 197) == 10 * 768 * 2
    assert bytes_per_block(Plan.parse("seq:4:L20"), MODEL, 197) == 3 * 20 * 768 * 4
    assert bytes_per_block(Plan.parse("seq:2:full"), MODEL, 197) == 99 * 768 * 4


IMAGE = 224 * 224 * 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seq:2:L10:f16", [IMAGE * 98 / 197 + 10 * 768 * 2]),
        ("seq:2:C10:lag1", [IMAGE * 98 / 197 + 10 * 769 * 4]),
        ("seq:3:C10:f16", [IMAGE * 66 / 197 + 20 * 769 * 2, IMAGE * 65 / 197 + 20 * 769 * 2]),
        ("seq:2:L10:f16:shares=3/1", [IMAGE * 49 / 197 + 10 * 768 * 2]),
        # All rows of the others are more than the image they come from.
        ("seq:2:full", [IMAGE]),
        ("seq:3:full:f16", [IMAGE, IMAGE]),
    ],
)
def test_a_helper_is_sent_its_own_pixels_and_means_or_the_whole_image(text, expected):
    found = helper_input_bytes(Plan.parse(text), MODEL, PAYLOAD, 1, 197)
    assert found == pytest.approx(expected)
    several = helper_input_bytes(Plan.parse(text), MODEL, PAYLOAD, 5, 197)
    assert several == pytest.approx([5 * each for each in expected])


def test_texts_and_rotated_keys_go_whole():
    ids = Payload(input_bytes_per_position=3)
    assert helper_input_bytes(Plan.parse("seq:2:C10:f16"), MODEL, ids, 2, 512) == [2 * 512 * 3]
    rotary = replace(MODEL, rotary=True)
    assert helper_input_bytes(Plan.parse("seq:2:L1:f16"), rotary, PAYLOAD, 1, 197) == [IMAGE]


def test_a_causal_helper_needs_the_means_of_earlier_positions_only():
    causal = replace(MODEL, causal=True)
    means = 10 * 768 * 2
    found = helper_input_bytes(Plan.parse("seq:3:L10:f16"), causal, PAYLOAD, 1, 198)
    assert found == pytest.approx([IMAGE / 3 + means, IMAGE / 3 + 2 * means])


def test_output_rows_come_back_only_where_the_answer_is_as_long():
    rows = Payload(output_bytes_per_position=768 * 4)
    assert needs_all_rows(MODEL, rows, 197) and not needs_all_rows(MODEL, PAYLOAD, 197)
    assert not needs_all_rows(MODEL, Payload(output_bytes=4000), 197)
    plan = Plan.parse("seq:3:C10:f16")
    assert output_row_bytes(plan, MODEL, 2, 197) == [2 * 66 * 768 * 2, 2 * 65 * 768 * 2]
