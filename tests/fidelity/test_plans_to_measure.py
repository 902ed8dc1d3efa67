"""Which plans are measured where nobody names them; the command's tests cover those of a map."""

import numpy as np
from tests.fidelity.models import text

from prism.fidelity.plans_to_measure import compressions_of, measured_as, usual_compressions
from prism.fidelity.samples import open_samples
from prism.models.load import load
from prism.perfmap import PerformanceMap
from prism.perfmap.schema import MapLink, Measurement, NodeInfo, Stat
from prism.plan import Plan


def names(loaded, source, **options):
    samples = open_samples(str(source), loaded, **options)
    return [str(plan) for plan in usual_compressions(loaded, samples)]


def test_about_ten_and_five_positions_share_a_mean_on_two_nodes():
    assert names(load("digits"), "digits") == [  # 257 tokens
        "seq:2:C13:f16",
        "seq:2:C26:f16",
        "seq:2:L13:f16",
        "seq:2:L26:f16",
        "local:half",
        "local:int8",
        "seq:2:C26:f16:int8",
    ]


def test_means_follow_from_the_longest_text(model, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(f"w5\n{text(98)}\n")
    assert "seq:2:C5:f16" in names(model("BertModel"), path)


def test_a_model_for_which_means_are_not_defined_is_measured_with_all_rows(model, tmp_path):
    path = tmp_path / "ids.npz"
    np.savez(path, input_ids=np.full((2, 17), 5))
    assert names(model("Qwen2ForCausalLM-window"), path) == [
        "seq:2:full:f16",
        "local:half",
        "local:int8",
        "seq:2:full:f16:int8",
    ]


def test_plans_that_exchange_nothing_are_one_measurement_by_precision():
    for name, measured in (
        ("batch:2", "local"),
        ("local@b", "local"),
        ("local@b:int8", "local:int8"),
        ("batch:3:int8:shares=3/1/0", "local:int8"),
        ("batch:a+b:half", "local:half"),
        ("seq:a+b:full:int8", "seq:2:full:int8"),
        ("seq:2:L2:f16:shares=3/1", "seq:2:L2:f16:shares=3/1"),
    ):
        assert str(measured_as(Plan.parse(name))) == measured


def map_of(*shapes):
    """Return a map that measured these plans once each."""
    return PerformanceMap(
        model_hash="0" * 64,
        model=PerformanceMap.paper().model,
        nodes=(NodeInfo("node0", "board", "2.6", "5.0", "float32"),),
        link=MapLink(1e8),
        measurements=tuple(Measurement(each, 1, 17, 1, Stat(0.1)) for each in shapes),
    )


def test_a_map_is_measured_at_all_of_its_precisions_alone_and_with_every_exchange():
    shapes = ("local", "local:int8", "batch:2:int8", "seq:2:full", "seq:2:C4:f16:shares=2/1")
    found = [str(plan) for plan in compressions_of(map_of(*shapes), "0" * 64)]
    assert found == [
        "local:int8",
        "seq:2:C4:f16:shares=2/1",
        "seq:2:full:int8",
        "seq:2:C4:f16:int8:shares=2/1",
    ]
