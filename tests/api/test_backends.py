"""Nodes that run models with another backend than plain transformers."""

import pytest
import torch
from tests.families import assert_equal_outputs
from tests.machines import pixels

import prism
from prism.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module", params=["packed", "onnxruntime", "auto"])
def model(request, vit):
    if request.param == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="pip install 'prism-edge[onnxruntime]'")
    with prism.local_cluster(nodes=2, threads=1, backend=request.param) as cluster:
        yield request.param, cluster.load(vit)


@pytest.mark.parametrize("plan", ["local", "batch:2", "seq:2:full", "seq:2:C3", "local:int8"])
def test_every_plan_runs_and_records_say_with_what(model, vit, plan):
    name, distributed = model
    output = distributed(plan=plan, pixel_values=pixels(3))
    parsed = prism.Plan.parse(plan)
    if parsed.exact:
        with torch.inference_mode():
            assert_equal_outputs(output, vit(pixel_values=pixels(3)), atol=1e-4)
    used = distributed.last_record.backend
    if name == "auto":
        return
    runs_parts = name == "packed"
    as_asked = parsed.precision == "float32" and (runs_parts or not parsed.exchanges)
    assert used == (name if as_asked else "eager")
    assert {each.backend for each in distributed.identity().nodes} == {name}


def test_large_requests_whose_rows_arrive_later_are_answered(model, vit):
    _, distributed = model
    output = distributed(plan="batch:2", pixel_values=pixels(40))
    with torch.inference_mode():
        assert_equal_outputs(output, vit(pixel_values=pixels(40)), atol=1e-4)


def test_an_unknown_backend_starts_nothing():
    with pytest.raises(ConfigError, match="there is no backend 'tensorrt'; use eager, packed"):
        prism.local_cluster(nodes=2, backend="tensorrt")
