from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.errors import InputError
from prism.perfmap import NodeInfo
from prism.plan import ModelShape, Plan
from prism.profiler.points import (
    Settings,
    balanced_shares,
    held_out_points,
    plans_alone,
    plans_alone_at,
    plans_together,
    plans_together_at,
    points_for,
    runs_per_point,
    thinned,
)

VIT = ModelShape("vit", 12, 768, 768, causal=False, rotary=False, max_length=197)
LLAMA = ModelShape("llama", 12, 768, 256, causal=True, rotary=True, max_length=512)


def test_every_node_alone_and_every_number_of_nodes_together():
    alone = plans_alone(["a", "b", "c"])
    together = plans_together(VIT, (4, 10), [1.0, 1.0, 1.0])
    assert [str(plan) for plan in alone] == ["local", "local@b", "local@c"]
    assert {plan.size for plan in together} == {2, 3}
    assert {str(plan) for plan in together if plan.size == 2} == {
        "batch:2",
        "seq:2:full",
        "seq:2:C4:f16",
        "seq:2:C4:lag1:f16",
        "seq:2:C10:f16",
        "seq:2:C10:lag1:f16",
        "seq:2:L10:f16",
    }


def test_at_a_precision_one_node_of_each_kind_runs_alone():
    nodes = [
        NodeInfo(name, kind, "2.13", "5.23", "float32", 1)
        for name, kind in (("a", "board"), ("b", "pi"), ("c", "board"), ("d", "pi"))
    ]
    plans = plans_alone_at(nodes, ("float32", "half", "int8"))
    expected = ["local:half", "local@b:half", "local:int8", "local@b:int8"]
    assert [str(plan) for plan in plans] == expected
    assert plans_alone_at(nodes, ("float32",)) == ()


def test_at_a_precision_the_plans_that_lose_least_and_hide_most_run_together():
    together = plans_together(VIT, (4, 10), [1.0, 3.0])
    assert [str(plan) for plan in plans_together_at(together, ("float32", "int8"))] == [
        "seq:2:C10:f16:int8:shares=75/25",
        "seq:2:C10:lag1:f16:int8:shares=75/25",
    ]
    windowed = plans_together(replace(LLAMA, windowed=True), (4,), [1.0, 1.0])
    found = plans_together_at(windowed, ("float32", "half"))
    assert [str(plan) for plan in found] == ["seq:2:full:f16:half"]


def test_a_few_plans_are_measured_at_the_corners_only():
    few = [Plan.parse("seq:2:C4:f16:int8")]
    groups = points_for([Plan()], (1, 4, 16), (8, 32, 128), few)
    found = [point[1:] for group in groups for point in group if point.plan in few]
    assert found == [(1, 8), (16, 8), (1, 128), (16, 128)]


def test_nodes_of_different_speed_get_positions_in_proportion_under_every_means():
    together = plans_together(VIT, (10,), [1.0, 3.0])
    split = {str(plan).partition(":shares=") for plan in together if plan.exchanges}
    assert {shares for _, _, shares in split} == {"75/25"} and len(split) == 4


def test_rotary_models_are_not_asked_for_lag():
    assert all(plan.lag == 0 for plan in plans_together(LLAMA, (4,), [1.0, 1.0]))


def test_models_with_windows_are_asked_for_no_means():
    windowed = replace(LLAMA, windowed=True)
    together = plans_together(windowed, (4, 10), [1.0, 1.0])
    assert [str(plan) for plan in together] == ["batch:2", "seq:2:full", "seq:2:full:f16"]


def test_a_slower_node_gets_fewer_positions():
    assert balanced_shares([1.0, 3.0]) == (75.0, 25.0)
    assert balanced_shares([1.0, 1.2]) == ()


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=8))
def test_shares_are_valid_and_follow_speed(seconds):
    shares = balanced_shares(seconds)
    if not shares:
        assert max(seconds) < 1.25 * min(seconds)
        return
    Plan("sequence", count=len(seconds), shares=shares)
    order = sorted(range(len(seconds)), key=seconds.__getitem__)
    assert [shares[i] for i in order] == sorted(shares, reverse=True)


def test_points_are_grouped_by_size_and_leave_out_what_is_too_short():
    plans = [Plan(), Plan.parse("seq:3:full")]
    groups = points_for(plans, (4, 1), (2, 8))
    assert [(group[0].batch, group[0].length) for group in groups] == [
        (1, 2),
        (4, 2),
        (1, 8),
        (4, 8),
    ]
    assert [len(group) for group in groups] == [1, 1, 2, 2]


@given(st.integers(1, 500), st.integers(1, 400))
def test_a_profile_stays_near_its_passes(points, passes):
    settings = Settings(passes=passes)
    runs = runs_per_point(settings, points)
    assert 2 <= runs <= 7
    if runs > 2:
        assert (runs + 1) * points + 4 * settings.held_out <= passes


@pytest.mark.parametrize(("nodes", "lengths"), [(2, (512,)), (3, (512,)), (2, (32, 128, 512))])
def test_the_usual_profiles_take_about_200_passes(nodes, lengths):
    settings = Settings()
    plans = (*plans_alone("abcd"[:nodes]), *plans_together(VIT, (4, 10), [1.0] * nodes))
    points = sum(map(len, thinned(points_for(plans, (1, 4, 16), lengths), settings)))
    total = points * (1 + runs_per_point(settings, points)) + 4 * settings.held_out
    assert 150 <= total <= 205


def test_where_passes_are_short_only_the_corners_and_local_are_measured():
    plans = [Plan(), Plan.parse("seq:2:full")]
    groups = points_for(plans, (1, 4, 16), (8, 32, 128))
    assert thinned(groups, Settings(passes=1000)) == groups
    few = thinned(groups, Settings(passes=60, held_out=4))
    points = [point for group in few for point in group]
    assert sum(point.plan == Plan() for point in points) == 9
    assert [point[1:] for point in points if point.plan != Plan()] == [
        *((1, 8), (16, 8), (1, 128), (16, 128))
    ]


def test_a_batch_smaller_than_its_nodes_is_split_at_the_smallest_that_is_not():
    plans = [Plan(), Plan.parse("batch:3")]
    groups = points_for(plans, (1, 2, 16), (197,))
    assert [[(str(point.plan), point.batch) for point in group] for group in groups] == [
        [("local", 1), ("batch:3", 3)],
        [("local", 2)],
        [("local", 16), ("batch:3", 16)],
    ]
    held_out = held_out_points(Settings(held_out=40), plans, (1, 2, 16), (197,))
    assert not set(held_out) & {point for group in groups for point in group}
    assert min(point.batch for point in held_out if str(point.plan).startswith("batch")) > 3


def test_held_out_points_lie_between_measured_batches():
    settings, batches = Settings(held_out=8), (1, 4, 16)
    plans = (*plans_alone(["a", "b"]), *plans_together(VIT, (10,), [1.0, 1.0]))
    points = held_out_points(settings, plans, batches, (197,))
    assert points
    assert all(1 < point.batch < 16 and point.batch != 4 for point in points)
    assert {point.plan.strategy for point in points} == {"local", "batch", "sequence"}
    assert points == held_out_points(settings, plans, batches, (197,))


@pytest.mark.parametrize(
    "values",
    [
        *({"batches": ()}, {"batches": (0,)}, {"segments": (4, 4)}, {"lengths": (8, 8)}),
        *({"precisions": ("int8",)}, {"precisions": ("float32", "int4")}),
        *({"passes": 0}, {"held_out": -1}, {"budget_s": 0.0}, {"budget_s": float("inf")}),
    ],
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(InputError):
        Settings(**values)
