"""A real model as the profiler sees it: which precisions its nodes can be measured at."""

import pytest

from prism.api.profiling import ProfiledModel
from prism.plan import PRECISIONS, Plan

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def loaded(cluster, vit):
    """Return a function that loads the model, bound to precisions or not."""
    models = []

    def load(precisions=None):
        models.append(cluster.load(vit, precisions=precisions))
        return models[-1]

    yield load
    for model in models:
        model.unload()


def test_by_default_the_precisions_are_those_that_plans_may_have(cluster, loaded):
    bench = ProfiledModel(cluster, loaded())
    assert {*bench.precisions, *bench.refused} == set(PRECISIONS)
    bench = ProfiledModel(cluster, loaded(["float32", "int8"]))
    assert (bench.precisions, bench.refused) == (("float32", "int8"), {})
    record = bench.run(Plan.parse("local:int8"), 1, bench.lengths[0])
    assert record.plan.precision == "int8" and record.total_s > 0


def test_a_precision_that_a_node_cannot_have_is_left_out_with_a_sentence(cluster, loaded):
    bench = ProfiledModel(cluster, loaded(["float32"]), ["float32", "int8"])
    assert bench.precisions == ("float32",)
    assert "float32 only" in bench.refused["int8"]
