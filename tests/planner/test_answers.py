"""Outputs in smaller forms travel faster; nothing else of a plan changes."""

from dataclasses import replace

import pytest
from tests.planner.clusters import LENGTH, LINK, MODEL, make_map

from prism.perfmap import Payload, Stat
from prism.plan import Plan
from prism.planner import WHOLE, CostModel, Wanted
from prism.record import LinkState

ROWS = Payload(150_528, 0, 768 * 4, 768 * 4)  # every position and a pooled one
POOLED = Wanted("pooled")
LINKS = [LinkState(5e6, 0.002), LINK.state(), LinkState(1e9, 0.0)]


def with_outputs(perf, payload):
    """The map, as measured over its link by nodes that send whole outputs."""
    whole_s = 8 * 98 * 768 * 4 / LINK.bandwidth_bps
    entries = [
        replace(
            entry,
            output_s=Stat(whole_s * entry.batch),
            total_s=Stat(entry.total_s.median + whole_s * entry.batch),
        )
        if entry.plan.startswith("seq")
        else entry
        for entry in perf.measurements
    ]
    return replace(perf, measurements=tuple(entries), payload=payload)


PERF = with_outputs(make_map(shapes=("seq:2:L10",)), ROWS)


@pytest.mark.parametrize(
    ("wanted", "measured", "expected"),
    [
        (WHOLE, ROWS, ROWS),
        (Wanted("logits"), ROWS, ROWS),
        (POOLED, ROWS, Payload(150_528, 0, 768 * 4, 0)),
        (Wanted("top_k", 3), ROWS, Payload(150_528, 0, 0, 36)),
        (Wanted("top_k", 3), Payload(1, 0, 4000), Payload(1, 0, 36)),
        # Never more than the whole.
        (POOLED, Payload(1, 0, 40), Payload(1, 0, 40)),
        (Wanted("top_k", 99), Payload(1, 0, 40), Payload(1, 0, 40)),
    ],
)
def test_bytes_of_the_forms_of_an_answer(wanted, measured, expected):
    assert wanted.payload(measured, MODEL) == expected


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("text", ["local@node1", "batch:2", "batch:3:shares=0/1/3"])
def test_rows_come_back_in_the_form_that_is_wanted(text, link):
    plan = Plan.parse(text)
    whole = CostModel(PERF).predict(plan, 4, LENGTH, link)
    pooled = CostModel(PERF, POOLED).predict(plan, 4, LENGTH, link)
    assert pooled.total_s < whole.total_s
    assert (pooled.compute_s, pooled.input_s) == (whole.compute_s, whole.input_s)
    assert CostModel(PERF, POOLED).predict(Plan(), 4, LENGTH, link) == CostModel(PERF).predict(
        Plan(), 4, LENGTH, link
    )


@pytest.mark.parametrize("link", LINKS)
def test_helpers_that_pool_send_a_vector_instead_of_their_rows(link):
    plan = Plan.parse("seq:2:L10")
    whole = CostModel(PERF).predict(plan, 4, LENGTH, link)
    pooled = CostModel(PERF, POOLED).predict(plan, 4, LENGTH, link)
    latency_s = link.latency_s - LINK.latency_s
    rows = 8 * 98 * 768 * 4 * 4
    assert whole.output_s == pytest.approx(rows / link.bandwidth_bps + latency_s, abs=2e-3)
    vector = 8 * 768 * 4 * 4
    assert pooled.output_s == pytest.approx(vector / link.bandwidth_bps + latency_s, abs=2e-3)
    assert whole.total_s - pooled.total_s == pytest.approx(whole.output_s - pooled.output_s)


def test_what_nodes_cost_each_other_is_that_of_the_whole_output():
    split = replace(PERF.measurements[0], plan="batch:2", batch=4)
    model = CostModel(PERF)
    took_s = 1.2 * model.predict(Plan.parse("batch:2"), 4, LENGTH, LINK.state()).total_s
    split = replace(split, total_s=Stat(took_s), compute_s=Stat(took_s))
    perf = replace(PERF, measurements=(*PERF.measurements, split))
    pair = [CostModel(perf, form).predict(Plan.parse("batch:2"), 8, LENGTH, LINK.state())
            for form in (WHOLE, POOLED)]  # fmt: skip
    assert pair[0].compute_s == pair[1].compute_s
