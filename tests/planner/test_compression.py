"""Which plans a measured accuracy covers, and which it says nothing of."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.clusters import LENGTH, make_map

from prism.perfmap import Accuracy
from prism.plan import Objective, Plan
from prism.planner import CostModel, decide
from prism.planner.compression import SPLIT_TOLERANCE, Compressions
from prism.record import LinkState

EQUAL = Accuracy("seq:2:C10:f16", 0.97, 0.01, 400)
UNEQUAL = Accuracy("seq:2:C10:f16:shares=3/1", 0.96, 0.02, 400)


def covering(text, *entries, length=LENGTH):
    return Compressions(entries).covering(Plan.parse(text), length)


@pytest.mark.parametrize(
    "text", ["seq:2:C10:f16", "seq:a+b:C10:f16", "seq:b+a:C10:f16", "seq:2:C10:f16:shares=5/5"]
)
def test_the_names_of_nodes_are_no_part_of_a_compression(text):
    assert covering(text, UNEQUAL, EQUAL) is EQUAL


@pytest.mark.parametrize(
    "text",
    [
        *("seq:3:C10:f16", "seq:2:L10:f16", "seq:2:C9:f16", "seq:2:C10"),
        *("seq:2:C10:lag1:f16", "seq:2:C10:bf16", "seq:2:full:f16", "local", "batch:2"),
    ],
)
def test_whatever_changes_the_answers_is(text):
    assert covering(text, EQUAL, UNEQUAL) is None


def test_an_unequal_split_is_never_assumed_from_the_equal_one():
    assert covering("seq:2:C10:f16:shares=3/1", EQUAL) is None
    assert covering("seq:2:C10:f16", UNEQUAL) is None


@pytest.mark.parametrize(
    ("shares", "covered"),
    [
        *(("3/1", True), ("75/25", True), ("0.75/0.25", True), ("77/23", True), ("73/27", True)),
        *(("78/22", False), ("72/28", False), ("1/3", False), ("2/1", False)),
    ],
)
def test_splits_that_hardly_differ_are_one(shares, covered):
    found = covering(f"seq:2:C10:f16:shares={shares}", EQUAL, UNEQUAL)
    assert found is (UNEQUAL if covered else None)


def test_the_nearest_split_counts_and_of_two_equally_near_the_worse():
    near = Accuracy("seq:2:C10:f16:shares=76/24", 0.9, 0.08, 400)
    twin = Accuracy("seq:2:C10:f16:shares=75/25", 0.96, 0.02, 400, drop_high=0.05)
    assert covering("seq:2:C10:f16:shares=75/25", near, UNEQUAL, twin) is twin
    assert covering("seq:2:C10:f16:shares=76/24", near, UNEQUAL, twin) is near


def test_a_measurement_says_nothing_of_longer_requests():
    short = replace(EQUAL, longest=20)
    assert covering("seq:2:C10:f16", short, length=20) is short
    assert covering("seq:2:C10:f16", short, length=21) is None
    perf = make_map(shapes=("seq:2:C10:f16",), drops={})
    model = CostModel(perf.with_accuracy([replace(short, longest=LENGTH - 1)]))
    for length in (LENGTH - 1, LENGTH):  # what holds for one must not be remembered for the other
        decision = decide(
            model, 1, length, LinkState(1e9, 0.0), objective=Objective("latency", 1.0)
        )
        lossy = next(each for each in decision.candidates if not each.plan.exact)
        assert lossy.allowed is (length < LENGTH)


weights = st.floats(0.05, 20)


@given(st.lists(st.tuples(weights, weights), min_size=2, max_size=4), st.floats(0.1, 10))
def test_only_the_proportions_of_shares_matter(pairs, scale):
    one, other = (tuple(column) for column in zip(*pairs, strict=True))

    def plan(shares):
        return Plan("sequence", count=len(shares), means=10, grouping="clusters", shares=shares)

    def entry(shares):
        return Accuracy(plan(shares).shape, 0.9, 0.05)

    table = Compressions([entry(one)])
    assert table.covering(plan(tuple(scale * share for share in one)), LENGTH)
    apart = max(abs(a / sum(one) - b / sum(other)) for a, b in pairs)
    if abs(apart - SPLIT_TOLERANCE) > 1e-6:
        assert bool(table.covering(plan(other), LENGTH)) is (apart < SPLIT_TOLERANCE)


def test_the_planner_uses_what_was_measured_of_an_unequal_split_and_names_what_was_not():
    """Two unequal nodes: the map's shares are in percent, the table's as somebody typed them."""
    shapes = ("seq:2:C10:shares=75/25", "seq:2:C4:shares=75/25")
    perf = make_map(shapes=shapes, nodes=("board", "slow"), drops={})
    table = (
        replace(EQUAL, plan="seq:2:C10:shares=3/1", drop=0.004, drop_high=0.009),
        replace(EQUAL, plan="seq:2:C4"),
    )
    model = CostModel(perf.with_accuracy(table))
    objective = Objective(max_accuracy_drop=0.01)
    decision = decide(model, 1, LENGTH, LinkState(1e9, 0.0), objective=objective)
    assert str(decision.choice) == "seq:2:C10:shares=75/25"
    reasons = {str(each.plan): each.reason for each in decision.candidates if not each.allowed}
    assert reasons == {
        "seq:2:C4:shares=75/25": "lossy, and its accuracy was never measured with this split of "
        "positions on inputs as long as these; run `prism evaluate MODEL DATA --map MAP`, which "
        "measures every plan of the map"
    }
