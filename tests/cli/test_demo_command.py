"""`prism demo`: a true table of the model in the package, a stream, and nothing left behind."""

import json
import os
from functools import partial

import psutil
import pytest
from tests.cli.commands import call

from prism.bench.contest import ADAPTIVE, ORACLE
from prism.demo.comparison import BATCH, plans_for
from prism.demo.digits import model_path
from prism.demo.stream import stream
from prism.fidelity.accuracy import FILE_NAME
from prism.plan import Plan

MAX_ACCURACY_DROP = 0.03
# The demo's own trace takes a minute and more, most of it full exchange on slow links.
TRACE = ((300, 16), (20, 1), (20, 4))


def test_the_demo_compares_adapts_and_ends_with_one_json_line(monkeypatch, capsys):
    monkeypatch.setattr("prism.demo.stream.stream", partial(stream, trace=TRACE, rounds=1))
    before = set(psutil.Process().children(recursive=True))
    result = call(monkeypatch, capsys, "demo", "--images", BATCH + 4, "--link", "1gbit,1ms")
    assert result.code == 0, result.err
    *lines, last = result.out.splitlines()
    report = json.loads(last)
    by_plan = {plan["plan"]: plan for plan in report["plans"]}
    assert list(by_plan) == [str(plan) for plan in plans_for(2)]
    for plan in by_plan.values():
        assert any(line.split()[:1] == [plan["plan"]] for line in lines)
        assert plan["images"] == BATCH + 4 and plan["recovered"] == 0
        if plan["exact"]:
            assert plan["agreement"] == 1.0
    assert by_plan["local"]["accuracy"] > 0.8  # of 20 images; 97 % of all
    assert by_plan["batch:2"]["input_bytes"] * 2 == by_plan["seq:2:full"]["input_bytes"]
    assert (
        by_plan["seq:2:full"]["exchanged_bytes"]
        > by_plan["seq:2:L4:lag1:f16"]["exchanged_bytes"]
        > 0
    )
    assert report["link"]["shape"] == "1gbit,1ms" and "emulated" in report["link"]["kind"]
    assert any("emulated" in line for line in lines)
    if len(os.sched_getaffinity(0)) >= 2:
        assert report["own_core_per_node"] is True
    check_stream(report["stream"], lines)
    assert set(psutil.Process().children(recursive=True)) <= before


def check_stream(stream, lines):
    """The second stage: every step of the trace, and adaptive beside each policy and the oracle."""
    assert 0 < stream["profile"]["passes"] <= 120
    assert stream["profile"]["held_out_errors"]
    assert stream["max_accuracy_drop"] == MAX_ACCURACY_DROP and not stream["point_estimate"]
    assert any(line.startswith("C<n> = each node sends n means") for line in lines)
    assert any("at most 3 points less accuracy" in line for line in lines)
    assert [(step["link"], step["batch"]) for step in stream["steps"]] == [
        (f"{mbps}mbit,3ms", batch) for mbps, batch in TRACE
    ]
    measured = json.loads((model_path() / FILE_NAME).read_text())["plans"]
    for step in stream["steps"]:
        chosen = Plan.parse(step["choice"])
        assert chosen.exact or measured[step["choice"]]["drop"] <= MAX_ACCURACY_DROP
        assert step["choice"] in step["predicted_s"]
        assert step["best"] in step["measured_s"] and step["regret"] >= 0
        assert ("batch:2" in step["measured_s"]) == (step["batch"] > 1)
    totals = stream["totals_s"]
    fixed = totals.keys() - {ADAPTIVE, ORACLE}
    means = {"seq:2:C10:f16", "seq:2:C10:lag1:f16", "seq:2:L10:f16"}
    assert {"local", "batch:2", "seq:2:full"} | means == fixed
    assert 0 < totals[ORACLE] <= min(totals[plan] for plan in fixed) * (1 + 1e-9)
    assert totals[ADAPTIVE] > 0
    for policy in ("adaptive", "oracle:", *(f"always {plan}" for plan in fixed)):
        assert any(line.strip().startswith(policy) for line in lines), policy


@pytest.mark.parametrize(
    "option, value, sentence",
    [
        ("--link", "5quux", "'5quux' in link"),
        ("--nodes", "1", "--nodes must be at least 2, not 1"),
        ("--images", "0", "--images must be at least 1, not 0"),
        ("--images", "401", "--images 401 is more than the 400"),
        ("--plan", "seq:3:full", "needs 3 nodes, the cluster has 2"),
        ("--objective", "speed", "unknown objective 'speed'"),
        ("--max-accuracy-drop", "2", "max_accuracy_drop must lie in 0..1"),
    ],
)
def test_bad_options_are_one_sentence_before_anything_starts(
    monkeypatch, capsys, option, value, sentence
):
    result = call(monkeypatch, capsys, "demo", option, value)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err and result.err.count("\n") == 1
