"""The arithmetic of adaptive against fixed plans and against hindsight."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.bench.contest import ADAPTIVE, ORACLE, Step, StepResult, plans_at, summary, totals
from prism.plan import Plan

PLANS = ("local", "batch:2", "seq:2:full", "seq:2:L10")


def result(measured_s, choice="local", predicted_s=None, noticed_s=0.5, batch=4):
    step = Step("100mbit,3ms", 100e6, batch)
    return StepResult(step, noticed_s, 99e6, choice, predicted_s or {}, measured_s)


def test_the_best_plan_is_a_fixed_one():
    assert result({"local": 3.0, "batch:2": 2.0, ADAPTIVE: 1.0}).best == "batch:2"


@pytest.mark.parametrize(
    ("choice", "regret"),
    [
        ("batch:2", 0.0),
        ("local", 0.5),
        # Not run as a fixed policy: what adaptive's own requests took is all there is.
        ("batch:2:shares=3/1", 0.25),
    ],
)
def test_regret_compares_the_plans_and_not_two_runs_of_one(choice, regret):
    measured_s = {"local": 3.0, "batch:2": 2.0, ADAPTIVE: 2.5}
    assert result(measured_s, choice).regret == pytest.approx(regret)


def test_a_choice_better_than_every_fixed_plan_is_not_regretted():
    assert result({"local": 3.0, ADAPTIVE: 2.0}, "batch:2:shares=3/1").regret == 0.0


def test_errors_are_signed_and_of_plans_both_predicted_and_measured():
    errors = result(
        {"local": 2.0, "batch:2": 1.0, ADAPTIVE: 1.0},
        predicted_s={"local": 1.0, "batch:2": 1.5, "seq:2:full": 7.0},
    ).errors
    assert errors == {"local": -0.5, "batch:2": 0.5}


def test_a_plan_that_cannot_serve_a_batch_counts_as_local_there():
    single = result({"local": 1.0, "seq:2:full": 3.0, ADAPTIVE: 1.5})
    large = result({"local": 8.0, "batch:2": 5.0, "seq:2:full": 6.0, ADAPTIVE: 5.5})
    assert totals([single, large]) == {
        "local": 9.0,
        "batch:2": 6.0,
        "seq:2:full": 9.0,
        ADAPTIVE: 7.0,
        ORACLE: 6.0,
    }


def test_one_row_is_not_split():
    plans = [Plan.parse(text) for text in (*PLANS, "batch:3")]
    assert [str(plan) for plan in plans_at(plans, 1)] == ["local", "seq:2:full", "seq:2:L10"]
    assert [str(plan) for plan in plans_at(plans, 2)] == list(PLANS)
    assert plans_at(plans, 3) == plans


@st.composite
def contests(draw):
    seconds = st.floats(1e-4, 10)
    return [
        result(
            {
                **{
                    plan: draw(seconds)
                    for plan in ("local", *draw(st.sets(st.sampled_from(PLANS))))
                },
                ADAPTIVE: draw(seconds),
            },
            choice=draw(st.sampled_from(PLANS)),
            noticed_s=draw(st.none() | seconds),
        )
        for _ in range(draw(st.integers(1, 5)))
    ]


@given(contests())
def test_hindsight_beats_every_fixed_policy(results):
    by_policy = totals(results)
    oracle_s = by_policy.pop(ORACLE)
    adaptive_s = by_policy.pop(ADAPTIVE)
    assert adaptive_s == pytest.approx(sum(each.measured_s[ADAPTIVE] for each in results))
    assert all(oracle_s <= seconds * (1 + 1e-9) for seconds in by_policy.values())
    assert all(each.regret >= 0 for each in results)


@given(contests())
def test_a_summary_is_plain_json(results):
    figures = summary(results)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["worst_regret"] >= figures["median_regret"] >= 0
    assert len(figures["steps"]) == len(results)
    never = all(each.noticed_s is None for each in results)
    assert (figures["noticed_s"] is None) == never
    assert figures["median_error"] is None  # nothing was predicted


def test_the_summarys_error_is_the_median_over_plans_and_steps():
    one = result({"local": 2.0, ADAPTIVE: 2.0}, predicted_s={"local": 1.0})
    two = result(
        {"local": 1.0, "batch:2": 1.0, ADAPTIVE: 1.0}, predicted_s={"local": 1.1, "batch:2": 1.2}
    )
    assert summary([one, two])["median_error"] == pytest.approx(0.2)
