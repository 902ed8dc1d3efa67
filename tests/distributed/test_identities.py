"""What a distributed run computes, for every family, on three real nodes with unequal parts.

Full exchange and one token per segment equal plain transformers; means equal the oracle that
repeats them; the in-process form equals the distributed run.
"""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tests.families import (
    CASES,
    PARTS,
    Case,
    assert_equal_outputs,
    largest_difference,
)
from tests.oracle import repeated_means

import prism
from prism.errors import PlanError


@dataclass(frozen=True)
class Loaded:
    """A family's model here, the same on the cluster, one padded request and its plain answer."""

    case: Case
    model: Any
    distributed: Any
    inputs: dict
    plain: Any

    @property
    def mask(self):
        return self.inputs.get("attention_mask")

    def oracle(self, segments, shares, lag=0, clusters=False):
        sizes = PARTS[self.case.tokens][shares]
        with torch.no_grad():
            model = repeated_means(
                self.model, self.case.layout, sizes, segments, lag, self.mask, clusters
            )
            return model(**self.inputs)


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def loaded(request, cluster, kept):
    case = request.param
    if case.name not in kept:
        model = case.model()
        inputs = case.inputs(padding=5)
        with torch.no_grad():
            plain = model(**inputs)
        kept[case.name] = Loaded(case, model, cluster.load(model), inputs, plain)
    return kept[case.name]


def of(cases):
    return pytest.mark.parametrize("loaded", cases, ids=lambda case: case.name, indirect=True)


every_family = of(CASES)
with_means = of([case for case in CASES if case.means])
with_lag = of([case for case in CASES if case.means and not case.layout.rotary])
without_means = of([case for case in CASES if not case.means])
without_lag = of([case for case in CASES if case.layout.rotary])


@every_family
@pytest.mark.parametrize("plan", ["seq:3:full:shares=3/1/2", "seq:2:full", "batch:2"])
def test_exact_plans_equal_transformers(loaded, plan):
    output = loaded.distributed(plan=plan, **loaded.inputs)
    assert type(output) is type(loaded.plain)
    assert_equal_outputs(output, loaded.plain, loaded.mask)
    assert loaded.distributed.last_record.outcome == "ok"


@with_means
@pytest.mark.parametrize(("wire", "atol"), [("", 1e-5), (":f16", 5e-3), (":bf16", 1e-1)])
@pytest.mark.parametrize("grouping", ["L", "C"])
def test_one_token_per_group_equals_transformers(loaded, grouping, wire, atol):
    output = loaded.distributed(plan=f"seq:3:{grouping}100{wire}:shares=3/1/2", **loaded.inputs)
    assert_equal_outputs(output, loaded.plain, loaded.mask, atol)


@with_means
@pytest.mark.parametrize(("segments", "shares"), [(2, "3/1/2"), (1, "1/3/2"), (4, "")])
def test_means_equal_the_oracle(loaded, segments, shares):
    plan = f"seq:3:L{segments}" + (f":shares={shares}" if shares else "")
    output = loaded.distributed(plan=plan, **loaded.inputs)
    expected = loaded.oracle(segments, shares)
    assert_equal_outputs(output, expected, loaded.mask)
    # The means do matter: otherwise the comparison would show nothing.
    assert largest_difference(expected, loaded.plain, loaded.mask) > 1e-2


@with_means
@pytest.mark.parametrize(("groups", "shares"), [(2, "3/1/2"), (3, "1/3/2"), (4, "")])
def test_clusters_equal_the_oracle(loaded, groups, shares):
    plan = f"seq:3:C{groups}" + (f":shares={shares}" if shares else "")
    output = loaded.distributed(plan=plan, **loaded.inputs)
    expected = loaded.oracle(groups, shares, clusters=True)
    assert_equal_outputs(output, expected, loaded.mask)
    assert largest_difference(expected, loaded.oracle(groups, shares), loaded.mask) > 1e-3


@with_lag
@pytest.mark.parametrize(("groups", "shares"), [(2, "3/1/2"), (3, "1/3/2")])
def test_lagged_clusters_equal_the_oracle(loaded, groups, shares):
    output = loaded.distributed(plan=f"seq:3:C{groups}:lag1:shares={shares}", **loaded.inputs)
    expected = loaded.oracle(groups, shares, lag=1, clusters=True)
    assert_equal_outputs(output, expected, loaded.mask)
    timely = loaded.oracle(groups, shares, clusters=True)
    assert largest_difference(output, timely, loaded.mask) > 1e-3


@with_lag
@pytest.mark.parametrize(("segments", "shares"), [(2, "3/1/2"), (3, "1/3/2"), (100, "")])
def test_lagged_means_equal_the_oracle(loaded, segments, shares):
    plan = f"seq:3:L{segments}:lag1" + (f":shares={shares}" if shares else "")
    output = loaded.distributed(plan=plan, **loaded.inputs)
    assert_equal_outputs(output, loaded.oracle(segments, shares, lag=1), loaded.mask)
    timely = loaded.oracle(segments, shares, lag=0)
    assert largest_difference(output, timely, loaded.mask) > 1e-2


@with_means
def test_half_precision_on_the_wire_stays_near_the_oracle(loaded):
    output = loaded.distributed(plan="seq:3:L2:f16:shares=3/1/2", **loaded.inputs)
    assert_equal_outputs(output, loaded.oracle(2, "3/1/2"), loaded.mask, atol=5e-3)


def virtual_and_distributed(loaded, plan):
    plan = prism.Plan.parse(plan)
    distributed = loaded.distributed(plan=plan, **loaded.inputs)
    with torch.no_grad(), prism.virtual(loaded.model, plan, loaded.mask):
        return loaded.model(**loaded.inputs), distributed


@every_family
def test_virtual_full_exchange_equals_the_distributed_run(loaded):
    virtual, distributed = virtual_and_distributed(loaded, "seq:3:full:shares=3/1/2")
    assert_equal_outputs(virtual, distributed, loaded.mask)


@with_means
@pytest.mark.parametrize("plan", ["seq:3:L2:shares=3/1/2", "seq:2:L3", "seq:3:C2:shares=3/1/2"])
def test_virtual_means_equal_the_distributed_run(loaded, plan):
    assert_equal_outputs(*virtual_and_distributed(loaded, plan), loaded.mask)


@with_lag
@pytest.mark.parametrize("plan", ["seq:3:L2:lag1:shares=1/3/2", "seq:2:full:lag1", "seq:3:C2:lag1"])
def test_virtual_lag_equals_the_distributed_run(loaded, plan):
    assert_equal_outputs(*virtual_and_distributed(loaded, plan), loaded.mask)


@with_means
def test_virtual_rounds_to_the_wire(loaded):
    virtual, distributed = virtual_and_distributed(loaded, "seq:3:L2:f16:shares=3/1/2")
    # The rows that go to the model's head are rounded too, by the distributed run only.
    assert_equal_outputs(virtual, distributed, loaded.mask, atol=5e-3)


@every_family
def test_local_after_any_plan_is_plain_transformers_to_the_bit(loaded):
    loaded.distributed(plan="seq:3:full", **loaded.inputs)
    output = loaded.distributed(plan="local", **loaded.inputs)
    assert largest_difference(output, loaded.plain) == 0


@with_means
@pytest.mark.parametrize("name", ["full", "L2", "C2"])
def test_unpadded_requests_need_no_mask(loaded, name):
    inputs = loaded.case.inputs(batch=1)
    inputs.pop("attention_mask", None)
    with torch.no_grad():
        model = loaded.model
        if name != "full":
            sizes = PARTS[loaded.case.tokens]["3/1/2"]
            model = repeated_means(
                model, loaded.case.layout, sizes, 2, clusters=name.startswith("C")
            )
        expected = model(**inputs)
    output = loaded.distributed(plan=f"seq:3:{name}:shares=3/1/2", **inputs)
    assert_equal_outputs(output, expected)


@without_means
def test_means_are_refused_where_a_window_slides(loaded):
    with pytest.raises(PlanError, match="sliding-window.*use full instead of means"):
        loaded.distributed(plan="seq:3:L2", **loaded.inputs)


@without_lag
def test_lag_is_refused_where_positions_live_in_the_keys(loaded):
    with pytest.raises(PlanError, match="positions in its keys.*leave lag1 out"):
        loaded.distributed(plan="seq:3:full:lag1", **loaded.inputs)
