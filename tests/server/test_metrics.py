"""What is counted, with few labels: of records made up for the purpose, and of two real nodes."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.machines import pixels, tiny_vit
from tests.planner.clusters import make_map

import prism
from prism.errors import DeadlineExceeded
from prism.plan import Plan
from prism.planner import Decision
from prism.record import Response, RunRecord
from prism.server.metrics import Metrics
from prism.server.served import Served


def read(metrics):
    """Return every sample by its name and its labels, sorted, as text."""
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def record(plan="batch:2", **values):
    return RunRecord(node="node0", plan=Plan.parse(plan), batch=4, length=17, **values)


def test_requests_by_model_route_and_status():
    metrics = Metrics()
    metrics.request_ended("vit", "/v2/models/{name}/infer", 200, 0.003)
    metrics.request_ended("vit", "/v2/models/{name}/infer", 200, 0.3)
    metrics.request_ended("", "/v1/models", 401, 0.001)
    metrics.request_queued("vit", 0.02)
    found = read(metrics)
    route = "model=vit,route=/v2/models/{name}/infer"
    assert found[f"prism_requests_total{{{route},status=200}}"] == 2
    assert found["prism_requests_total{model=,route=/v1/models,status=401}"] == 1
    assert found[f"prism_request_seconds_bucket{{le=0.005,{route}}}"] == 1
    assert found[f"prism_request_seconds_count{{{route}}}"] == 2
    assert found["prism_queue_seconds_sum{model=vit}"] == pytest.approx(0.02)


def test_a_batch_with_its_parts_bytes_and_energy():
    helper = record(
        total_s=0.4,
        input_bytes=300,
        output_bytes=30,
        energy_j=2.0,
        energy_domain="b",
        energy_quality="measured",
    )
    same = replace(helper, node="node2", energy_domain="a")
    whole = record(
        total_s=0.5,
        compute_s=0.3,
        comm_s=0.1,
        queue_s=0.1,
        bytes_sent=7,
        energy_j=3.0,
        energy_domain="a",
        energy_quality="estimated",
        per_node={"node1": helper, "node2": same},
    )
    decision = Decision(Plan.parse("batch:2"), ("node0", "node1"), 0.3, ())
    metrics = Metrics()
    metrics.batch_ended("vit", 4, Response(None, whole, decision))
    metrics.batch_ended("vit", 4, Response(None, replace(whole, outcome="recovered"), decision))
    found = read(metrics)
    assert found["prism_runs_total{model=vit,outcome=ok,plan=batch:2}"] == 1
    assert found["prism_runs_total{model=vit,outcome=recovered,plan=batch:2}"] == 1
    assert found["prism_batch_rows_sum{model=vit}"] == 8
    assert found["prism_run_part_seconds_total{model=vit,part=comm}"] == pytest.approx(0.2)
    assert found["prism_run_bytes_total{model=vit,what=input}"] == 1200
    assert found["prism_run_bytes_total{model=vit,what=exchanged}"] == 14
    # One sensor read twice is one energy.
    assert found["prism_energy_joules_total{model=vit,quality=measured}"] == 4.0
    assert found["prism_energy_joules_total{model=vit,quality=estimated}"] == 6.0
    # What ran instead of the plan says nothing of its prediction.
    assert found["prism_predicted_seconds_total{model=vit}"] == pytest.approx(0.3)
    assert found["prism_measured_seconds_total{model=vit}"] == pytest.approx(0.4)
    assert found["prism_predicted_over_measured_count{model=vit}"] == 1


def test_labels_stay_few_whatever_clients_name():
    metrics = Metrics()
    for means in range(1, 500):
        response = Response(None, record(f"seq:2:L{means}", total_s=0.1))
        metrics.batch_ended("vit", 1, response)
    plans = [name for name in read(metrics) if name.startswith("prism_runs_total")]
    assert len(plans) == 65
    assert read(metrics)["prism_runs_total{model=vit,outcome=ok,plan=other}"] == 499 - 64


def test_failures_by_kind():
    metrics = Metrics()
    metrics.batch_failed("vit", DeadlineExceeded("late"))
    metrics.batch_failed("vit", KeyError("a mistake"))
    metrics.batch_repeated("vit")
    found = read(metrics)
    assert found["prism_batches_failed_total{kind=DeadlineExceeded,model=vit}"] == 1
    assert found["prism_batches_failed_total{kind=other,model=vit}"] == 1
    assert found["prism_batches_repeated_total{model=vit}"] == 1


def test_what_is_true_of_the_nodes_now():
    with prism.local_cluster(nodes=2, threads=1) as cluster:
        model = cluster.load(tiny_vit())
        identity = model.identity()
        perf = replace(make_map(("batch:2",)), model_hash=identity.model_hash, nodes=identity.nodes)
        metrics = Metrics()
        metrics.watch(Served("vit", model, model.info), lambda: (3, 5))
        found = read(metrics)
        assert found["prism_queue_requests{model=vit}"] == 3
        assert found["prism_queue_rows{model=vit}"] == 5
        assert found["prism_node_state{model=vit,node=node1,state=ready}"] == 1
        assert found["prism_node_state{model=vit,node=node1,state=lost}"] == 0
        assert not any(name.startswith("prism_link") for name in found)
        model.use_map(perf)
        found = read(metrics)
        assert found["prism_link_bandwidth_bps{model=vit,node=node1}"] > 0
        assert found["prism_link_latency_seconds{model=vit,node=node1}"] > 0
        future = model.submit(plan="local@node1", pixel_values=pixels(300))
        assert read(metrics)["prism_node_busy_seconds{model=vit,node=node1}"] >= 0
        future.result(60)
