"""What a budget pays for first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.profiler.targets import LLAMA, VIT

from prism.plan import Plan
from prism.profiler.points import Point, plans_alone, plans_together, points_for
from prism.profiler.selection import BATCHES, affordable, batches_for, units


def points(nodes=2, batches=(1, 4, 16), lengths=(197,), model=VIT):
    names = [f"node{index}" for index in range(nodes)]
    plans = (*plans_alone(names), *plans_together(model, (4, 10), [1.0] * nodes))
    return [point for group in points_for(plans, batches, lengths) for point in group]


def work(point):
    return float(point.batch * point.length)


def test_local_comes_first_then_the_plans_that_lose_least_then_their_variants():
    first = [unit[0].plan for unit in units(points(nodes=3))]
    order = [str(plan) for plan in dict.fromkeys(first)]
    assert order == [
        *("local", "seq:2:C10:f16", "seq:3:C10:f16", "seq:2:full", "seq:3:full"),
        *("local@node1", "local@node2", "batch:2", "batch:3"),
        *("seq:2:C10:lag1:f16", "seq:3:C10:lag1:f16"),
        *("seq:2:C4:f16", "seq:2:C4:lag1:f16", "seq:3:C4:f16", "seq:3:C4:lag1:f16"),
        *("seq:2:L10:f16", "seq:3:L10:f16"),
    ]


def test_what_a_precision_gains_on_one_node_comes_right_after_local():
    names = ("local", "local:int8", "local:half", "local@node1:int8", "seq:2:C10:f16:int8")
    plans = {Plan.parse(text) for text in names}
    wanted = [*points(), *(Point(plan, batch, 197) for plan in plans for batch in (1, 16))]
    order = list(dict.fromkeys(str(unit[0].plan) for unit in units(wanted)))
    assert order[0] == "local" and set(order[1:3]) == {"local:int8", "local:half"}
    assert (
        order.index("local@node1") < order.index("seq:2:C10:f16:int8") < order.index("seq:2:C4:f16")
    )


def test_a_plan_is_measured_at_its_smallest_and_largest_size_before_any_between():
    wanted = points(lengths=(32, 128, 512), model=LLAMA)
    full = [each for each in units(wanted) if each[0].plan == Plan.parse("seq:2:full")]
    assert {point[1:] for point in full[0]} == {(1, 32), (16, 32), (1, 512), (16, 512)}
    smallest, *by_length = full[1:]
    assert {point[1:] for point in smallest} == {(1, 32), (1, 512)}
    assert [{point.length for point in unit} for unit in by_length] == [{32}, {128}, {512}]


def test_a_plan_that_was_begun_gets_its_other_length_before_larger_batches():
    wanted = points(lengths=(32, 512), model=LLAMA)
    begun = Plan.parse("seq:2:L10:f16")
    found = units(wanted, {begun})
    assert [unit[0].plan for unit in found[:4]] == [Plan()] * 4
    assert set(found[4]) == {Point(begun, 1, 32), Point(begun, 1, 512)}
    assert found[:4] + found[5:] == units(wanted)


def test_with_all_the_time_there_is_everything_is_chosen():
    wanted = points()
    assert set(affordable(units(wanted), work, float("inf"))) == set(wanted)


@given(st.floats(-10, 200_000), st.integers(2, 4))
def test_what_is_chosen_fits_and_nothing_left_out_would_have(left_s, nodes):
    wanted = points(nodes)
    chosen = affordable(units(wanted), work, left_s)
    spent_s = sum(chosen.values())
    assert spent_s <= max(0.0, left_s)
    for unit in units(wanted):
        more_s = sum(work(point) for point in unit if point not in chosen)
        assert more_s == 0.0 or more_s > left_s - spent_s


def test_a_plan_gets_one_size_where_both_are_too_much():
    wanted = [Point(Plan.parse("seq:2:full"), batch, 197) for batch in (1, 16)]
    assert list(affordable(units(wanted), work, 5 * 197)) == wanted[:1]


def test_what_was_measured_costs_nothing_and_stays():
    wanted = points()
    done = {point for point in wanted if point.plan == Plan.parse("seq:2:L10:f16")}
    chosen = affordable(units(wanted), lambda point: 0.0 if point in done else work(point), 0.0)
    assert chosen.keys() == done


@pytest.mark.parametrize(
    ("bytes_per_row", "largest"), [(40, 16), (50e6, 8), (80e6, 6), (150e6, 3), (1e12, 3)]
)
def test_large_outputs_are_measured_in_small_batches(bytes_per_row, largest):
    choices = batches_for(lambda batch: batch * bytes_per_row)
    assert choices[0][-1] == largest
    assert choices == BATCHES[-len(choices) :]


def test_every_choice_of_batches_leaves_one_between_to_test_the_prediction():
    assert all(set(range(min(sizes), max(sizes))) - set(sizes) for sizes in BATCHES)
