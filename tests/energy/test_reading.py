"""The sum over nodes: complete, or openly incomplete."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.energy import EnergyReading, combine
from prism.errors import InputError


def measured(node: str, joules: float, domain: str = "") -> EnergyReading:
    return EnergyReading(joules, f"VDD_IN of {node}", "measured", 1.0, node, domain)


def missing(node: str) -> EnergyReading:
    return EnergyReading(None, f"none of {node}", None, 1.0, node, reason="no sensor")


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=8))
def test_the_cluster_uses_the_sum_of_its_nodes(values: list[float]) -> None:
    total = combine([measured(f"n{i}", joules) for i, joules in enumerate(values)])
    assert total.joules == total.partial_j == pytest.approx(sum(values))
    assert total.quality == "measured" and total.missing == ()


def test_one_estimate_makes_the_sum_an_estimate_and_scopes_are_kept() -> None:
    model = EnergyReading(3.0, "model of b", "estimated", 1.0, "b")
    total = combine([measured("a", 2.0), model])
    assert (total.joules, total.quality) == (5.0, "estimated")
    assert total.scope == "VDD_IN of a + model of b"


def test_a_node_that_cannot_measure_leaves_a_partial_sum_and_its_name() -> None:
    total = combine([measured("a", 2.0), missing("b"), measured("c", 3.0)])
    assert (total.joules, total.partial_j) == (None, 5.0)
    assert total.missing == (("b", "no sensor"),)


def test_nothing_measured_is_not_zero() -> None:
    total = combine([missing("a"), missing("b")])
    assert total.joules is total.partial_j is total.quality is None
    assert [name for name, _ in total.missing] == ["a", "b"]


def test_processes_on_one_machine_count_their_shared_sensor_once() -> None:
    readings = [measured("a", 9.0, "box/rapl"), measured("b", 8.0, "box/rapl"), measured("c", 1.0)]
    assert combine(readings).joules == 10.0
    assert combine(readings[::-1]).joules == 10.0


def test_misuse_is_refused() -> None:
    with pytest.raises(InputError, match="no energy readings"):
        combine([])
    with pytest.raises(InputError, match="two energy readings"):
        combine([measured("a", 1.0), measured("a", 2.0)])
