"""Two real nodes on an emulated link: profiled, then left to choose while the link changes.

One cluster for all, with the model in the package, whose accuracy is known. What must not depend on
how fast a machine is today runs on maps of a known law.
"""

import json
import os
import signal
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.machines import close, tiny_vit, until
from tests.planner.clusters import LENGTH, make_map

import prism
from prism.api.profiling import ProfiledModel
from prism.coordinator.adaptive import Adaptive
from prism.demo.digits import model_path
from prism.errors import InputError, MapError, PlanError, RequestError
from prism.perfmap import Accuracy, ClusterIdentity, PerformanceMap
from prism.plan import Objective, Plan
from prism.planner import CostModel, decide
from prism.planner.policy import DEFAULT_MARGIN
from prism.profiler import Profiler, Settings
from prism.record import LinkState, RunRecord

LINK = "100mbit,3ms"
SETTINGS = Settings(batches=(1, 8), segments=(10,), passes=40, held_out=3)
LOSSY = "seq:2:L10:f16"


def images(batch):
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, 1, 64, 64), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A profiled model on two nodes."""
    path = tmp_path_factory.mktemp("maps") / "map.json"
    options = {"threads": 1, "link": LINK, "energy": "model:idle=2,busy=7"}
    with prism.local_cluster(nodes=2, **options) as cluster:
        model = cluster.load(model_path())
        bench = ProfiledModel(cluster, model, ("float32",))
        perf = Profiler(bench, SETTINGS, path, lambda progress: None, prism.__version__).run()
        yield SimpleNamespace(cluster=cluster, model=model, path=path, perf=perf)


@pytest.fixture
def adaptive(live):
    """The profiled model with its map just put to use, on the link it was profiled on."""
    live.cluster.set_link(LINK)
    live.model.use_map(live.path)
    yield live
    live.model.close()


def bandwidth_near(model, bps):
    return lambda: bps / 1.5 < model.link.bandwidth_bps < bps * 1.5


def test_the_map_of_real_nodes_says_what_they_are_and_what_they_cost(live):
    perf = PerformanceMap.load(live.path)
    assert perf == live.perf
    assert perf.link.bandwidth_bps == pytest.approx(100e6, rel=0.3)
    assert 0.002 < perf.link.latency_s < 0.02
    assert not perf.link.shared
    # Nodes that happen to differ in speed get shares.
    assert {shape.partition(":shares")[0] for shape in perf.by_shape} == {
        *("local", "local@node1", "batch:2", "seq:2:full"),
        *("seq:2:C10:f16", "seq:2:C10:lag1:f16", LOSSY),
    }
    assert len(perf.measurements) == 14
    assert all(entry.runs >= 2 and entry.compute_s.median > 0 for entry in perf.measurements)
    sent = {entry.plan: entry.bytes_sent for entry in perf.measurements if entry.batch == 8}
    full = next(shape for shape in sent if "full" in shape)
    assert sent["local"] == 0 < min(sent[shape] for shape in sent if "10" in shape) < sent[full]
    assert {each.batch for each in perf.held_out} <= set(range(2, 8)) and perf.held_out
    assert [each.node for each in perf.coding] == ["node0", "node1"]
    # Each was predicted from this map, on the link as it was measured, for a plan that is in it.
    law = CostModel(perf)
    for each in perf.held_out:
        assert each.plan in perf.by_shape
        predicted = law.predict(Plan.parse(each.plan), each.batch, each.length, perf.link.state())
        assert each.predicted_s == pytest.approx(predicted.total_s)
    table = json.loads((model_path() / "accuracy.json").read_text())
    assert perf.accuracy_by_shape[LOSSY].drop == table["plans"][LOSSY]["drop"]


def test_without_a_map_nothing_is_chosen(live):
    model = live.cluster.load(model_path())
    for ask in (
        lambda: model(plan="auto", pixel_values=images(1)),
        lambda: model.decide(pixel_values=images(1)),
        lambda: model.link,
    ):
        with pytest.raises(PlanError, match="performance map; make one with prism profile"):
            ask()
    model(pixel_values=images(1))
    assert model.last_decision is None and model.last_record.plan == Plan.parse("local@node0")


@pytest.mark.parametrize("plan", [None, "auto"])
@pytest.mark.parametrize("batch", [1, 8])
def test_with_a_map_the_planner_chooses_and_the_choice_is_run(adaptive, plan, batch):
    model, x = adaptive.model, images(batch)
    output = model(plan=plan, pixel_values=x)
    decision, record = model.last_decision, model.last_record
    assert decision.choice.exact
    assert record.plan == decision.choice.on(("node0", "node1"))
    predicted_s = {each.plan: each.predicted_s for each in decision.candidates if each.allowed}
    assert all(each.exact for each in predicted_s)
    assert decision.predicted_s == predicted_s[decision.choice]
    # The quickest, or one that is slower by too little to be worth a change.
    assert min(predicted_s.values()) >= decision.predicted_s * (1 - DEFAULT_MARGIN)
    assert close(output.logits, model(plan="local", pixel_values=x).logits)


def test_a_plan_that_is_named_is_still_run(adaptive):
    for plan in ("local@node1", "seq:2:L10:lag1:f16"):
        adaptive.model(plan=plan, pixel_values=images(2))
        assert adaptive.model.last_decision is None
        assert str(adaptive.model.last_record.plan) == plan


def test_asking_for_the_decision_runs_nothing(adaptive):
    before = adaptive.model.last_record
    decision = adaptive.model.decide(pixel_values=images(8))
    assert {"local", "batch:2"} <= {str(each.plan) for each in decision.candidates}
    assert adaptive.model.last_record is before


def test_the_decision_is_that_of_the_output_that_is_wanted(adaptive):
    assert adaptive.model.decide(output="top_k", pixel_values=images(8)).candidates
    with pytest.raises(RequestError, match="unknown output 'best'"):
        adaptive.model.decide(output="best", pixel_values=images(8))


def test_runs_alone_tell_that_the_link_changed(adaptive):
    model = adaptive.model
    model.close()  # nobody probes from here on
    for mbps in (20, 200):
        adaptive.cluster.set_link(f"{mbps}mbit,3ms")

        def heard(bps=mbps * 1e6):
            model(plan="seq:2:full", pixel_values=images(8))
            return bps / 2 < model.link.bandwidth_bps < bps * 2

        assert until(heard, timeout_s=30.0), model.link
        assert model.link.source == "passive"


def test_without_any_request_a_link_that_fails_and_recovers_is_noticed(adaptive):
    model = adaptive.model
    before = model.last_record
    for mbps in (5, 200, 20):
        adaptive.cluster.set_link(f"{mbps}mbit,3ms")
        assert until(bandwidth_near(model, mbps * 1e6), timeout_s=30.0), model.link
        assert model.link.source == "probe"
    assert model.last_record is before


def test_a_link_that_all_but_fails_is_left_alone(adaptive):
    """A probe of the old length would hold the link for ten seconds now."""
    adaptive.cluster.set_link("100kbit,50ms")
    assert until(bandwidth_near(adaptive.model, 100e3), timeout_s=30.0), adaptive.model.link
    assert str(adaptive.model.decide(pixel_values=images(8)).choice) == "local"
    adaptive.model(pixel_values=images(8))
    assert str(adaptive.model.last_record.plan) == "local@node0"


def test_lossy_plans_are_candidates_within_the_accuracy_they_may_cost(adaptive):
    model = adaptive.model
    # Shapes of nodes that happened to differ in speed have other names than the model's table.
    drops = {
        shape: 0.01 * (1 + number)
        for number, shape in enumerate(sorted(adaptive.perf.by_shape))
        if not Plan.parse(shape).exact
    }
    accuracy = tuple(Accuracy(shape, 0.9, drop, 400) for shape, drop in drops.items())
    perf = replace(adaptive.perf, accuracy=accuracy)
    assert len(drops) == 3
    for budget in (0.0, min(drops.values()), 1.0):
        model.use_map(perf, objective=Objective("latency", budget))
        decision = model.decide(pixel_values=images(4))
        lossy = [each for each in decision.candidates if not each.plan.exact]
        assert {each.plan.shape: each.accuracy_drop for each in lossy} == drops
        assert {each.plan.shape for each in lossy if each.allowed} == {
            shape for shape, drop in drops.items() if drop <= budget
        }
        assert next(each for each in decision.candidates if each.plan == decision.choice).allowed


def test_an_allow_list_is_honoured_to_the_request(adaptive):
    model = adaptive.model
    lossy = next(plan for plan in adaptive.perf.by_shape if "L10:f16" in plan)
    model.use_map(adaptive.perf, allow=[lossy])
    allowed = {
        str(each.plan) for each in model.decide(pixel_values=images(8)).candidates if each.allowed
    }
    assert allowed == {"local", lossy}
    model(pixel_values=images(8))
    assert model.last_decision.choice.shape in allowed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda perf: replace(perf, model_hash="abc"), "model is .*, the map has abc"),
        (lambda perf: replace(perf, nodes=perf.nodes[:1]), "the map lacks node1"),
        (
            lambda perf: replace(perf, nodes=perf.nodes[::-1]),
            "the first node is node0, the map has node1",
        ),
        (
            lambda perf: replace(perf, nodes=(replace(perf.nodes[0], threads=9), perf.nodes[1])),
            "node0: threads is 1, the map has 9",
        ),
    ],
    ids=["model", "fewer nodes", "first node", "threads"],
)
def test_a_map_of_something_else_is_refused_and_the_old_one_stays(adaptive, change, sentence):
    with pytest.raises(MapError, match=sentence):
        adaptive.model.use_map(change(adaptive.perf))
    adaptive.model(plan="auto", pixel_values=images(1))


def test_a_map_of_more_nodes_serves_those_that_are_there(adaptive):
    perf = adaptive.perf
    more = replace(perf, nodes=(*perf.nodes, replace(perf.nodes[1], name="pi")))
    adaptive.model.use_map(more)
    decision = adaptive.model.decide(pixel_values=images(8))
    assert {"local", "batch:2"} <= {str(each.plan) for each in decision.candidates}
    assert all("pi" not in each.nodes for each in decision.candidates)
    adaptive.model(plan="auto", pixel_values=images(8))
    assert adaptive.model.last_record.outcome == "ok"


def test_a_map_is_of_one_model_and_one_dtype(live):
    other = live.cluster.load(tiny_vit())
    with pytest.raises(MapError, match="model is"):
        other.use_map(live.path)
    halves = live.cluster.load(model_path(), "bfloat16")
    with pytest.raises(MapError, match="node0: dtype is bfloat16, the map has float32"):
        halves.use_map(live.path)


def test_estimated_energy_is_on_every_node_and_can_be_minimised(adaptive):
    model = adaptive.model
    model(plan="seq:2:full", pixel_values=images(4))
    record = model.last_record
    for each in (record, *record.per_node.values()):
        assert each.energy_quality == "estimated"
        assert "idle=2 W, busy=7 W" in each.energy_scope
        assert 0 < each.energy_j <= 7 * each.total_s * 1.5
    assert "idle=2 W" in adaptive.perf.energy_scope
    assert all(entry.energy_j.median > 0 for entry in adaptive.perf.measurements)
    for metric in ("energy", "edp"):
        model.use_map(adaptive.perf, objective=Objective(metric))
        model(pixel_values=images(8))
        decision = model.last_decision
        assert all(each.energy_j > 0 for each in decision.candidates)
        weight = {"energy": lambda each: each.energy_j}.get(
            metric, lambda each: each.energy_j * each.predicted_s
        )
        values = {each.plan: weight(each) for each in decision.candidates if each.allowed}
        assert values[decision.choice] == min(values.values())


def test_energy_that_nobody_measured_cannot_be_minimised(adaptive):
    unmetered = tuple(replace(entry, energy_j=None) for entry in adaptive.perf.measurements)
    perf = replace(adaptive.perf, measurements=unmetered, energy_scope="")
    adaptive.model.use_map(perf, objective=Objective("energy"))
    with pytest.raises(InputError, match="profile with a meter or choose latency"):
        adaptive.model(pixel_values=images(1))


def test_a_helper_that_is_killed_costs_no_request_and_is_not_chosen(adaptive):
    cluster, model = adaptive.cluster, adaptive.model
    pid = cluster.pid("node1")
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    expected = model(plan="local", pixel_values=images(8)).logits
    os.kill(pid, signal.SIGKILL)
    output = model(plan="auto", pixel_values=images(8))
    assert close(output.logits, expected)
    assert model.last_record.node == "node0"
    assert until(lambda: cluster.nodes == ("node0",))
    output = model(pixel_values=images(8))
    assert close(output.logits, expected)
    assert str(model.last_decision.choice) == "local"
    assert model.last_record.outcome == "ok"
    assert [str(each.plan) for each in model.last_decision.candidates] == ["local"]
    again = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert until(lambda: cluster.nodes == ("node0", "node1"), timeout_s=60.0)
        candidates = model.decide(pixel_values=images(8)).candidates
        assert "batch:2" in {str(each.plan) for each in candidates}
        output = model(plan="seq:2:full", pixel_values=images(8))
        assert close(output.logits, expected) and model.last_record.outcome == "ok"
    finally:
        os.kill(again.pid, signal.SIGTERM)
        again.wait(20.0)


def lawful(allow=("seq:2:L10",), objective=None):
    """The choice on a map of a known law, without nodes."""
    perf = make_map()
    plans = None if allow is None else [Plan.parse(text) for text in allow]
    return Adaptive(perf, ClusterIdentity(perf.model_hash, perf.nodes), objective, plans)


def choices(adaptive, probes_bps, names=("node0", "node1", "node2")):
    """Return what is chosen while probes, two seconds apart, see one bandwidth after the other."""
    chosen = []
    for number, bps in enumerate(probes_bps):
        now_s = 100.0 + 2.0 * number
        for helper in ("node1", "node2"):
            nbytes = adaptive.probe_sizes(helper)[-1]
            adaptive.probed(helper, nbytes, 0.002, 0.002 + 8 * nbytes / bps, now_s)
        chosen.append(str(adaptive.choose(8, LENGTH, names, now_s).choice))
    return chosen


def switches(chosen):
    return sum(before != after for before, after in pairwise(chosen))


def crossing_bps():
    """Return the bandwidth below which `local` beats the plan for 8 rows, by bisection."""
    model, allow = CostModel(make_map()), [Plan.parse("seq:2:L10")]
    low, high = 1e6, 1e10
    while high / low > 1.0001:
        middle = (low * high) ** 0.5
        link = LinkState(middle, 0.001)
        alone = decide(model, 8, LENGTH, link, allow=allow).choice == Plan()
        low, high = (middle, high) if alone else (low, middle)
    return high


def test_a_link_that_flaps_does_not_make_the_plans_flap():
    crossing = crossing_bps()
    seen = (crossing * factor for factor in (0.9, 1.1) * 20)
    assert switches(choices(lawful(), seen)) <= 1
    good = 4 * crossing
    blackouts = [good, good, good, 1e5] * 10  # every fourth probe meets a scan of the radio
    assert set(choices(lawful(), blackouts)) == {"seq:2:L10"}


def test_a_link_that_stays_changed_changes_the_plan_once_each_way():
    good, bad = 4 * crossing_bps(), crossing_bps() / 4
    chosen = choices(lawful(), [good] * 3 + [bad] * 6 + [good] * 6)
    assert (chosen[0], chosen[8], chosen[-1]) == ("seq:2:L10", "local", "seq:2:L10")
    assert switches(chosen) == 2


def test_runs_put_off_the_probe():
    adaptive = lawful()
    choices(adaptive, [100e6])
    assert not adaptive.probe_due("node1", 101.0) and adaptive.probe_due("node1", 103.0)
    plan = Plan.parse("seq:2:L10")
    decision = adaptive.choose(8, LENGTH, ("node0", "node1", "node2"), 102.0)
    predicted = next(each for each in decision.candidates if each.plan == plan)
    expected_s = predicted.compute_s
    helper = RunRecord("node1", plan, 8, LENGTH, expected_s, expected_s)
    record = RunRecord(
        "node0", plan, 8, LENGTH, 0.3, expected_s,
        comm_s=predicted.comm_s, per_node={"node1": helper},
    )  # fmt: skip
    adaptive.observe(record, 102.5, alone=False)
    assert adaptive.probe_due("node1", 103.0)  # another request may have been on the link
    adaptive.observe(record, 102.5)
    assert not adaptive.probe_due("node1", 103.0) and adaptive.probe_due("node2", 103.0)
    assert adaptive.slowest_link.bandwidth_bps == pytest.approx(100e6, rel=0.1)
    adaptive.observe(replace(record, plan=Plan(), per_node={}), 110.0)
    assert adaptive.probe_due("node1", 110.0)


def test_a_probe_is_short_on_every_link():
    assert lawful().probe_sizes("node1") == (8_000, 0.01 * 100e6 / 8)
    for bps, sizes in ((1e5, (8_000,)), (1e10, (8_000, 400_000))):
        adaptive = lawful()
        choices(adaptive, [bps])
        assert adaptive.probe_sizes("node1") == sizes


def test_when_the_first_node_is_gone_the_quickest_node_left_answers():
    decision = lawful().choose(8, LENGTH, ("node1", "node2"), 1.0)
    assert str(decision.choice) == "local@node1"
    assert decision.predicted_s > 0


def test_nodes_that_joined_after_the_profile_are_passed_over():
    names = ("node0", "node1", "new")
    decision = lawful(allow=None).choose(8, LENGTH, names, 1.0)
    assert decision.candidates
    assert all("new" not in each.nodes for each in decision.candidates)
    alone = lawful().choose(8, LENGTH, ("new",), 1.0)
    assert (alone.nodes, alone.left_out[0].reason) == (("new",), "the map covers none of new")
