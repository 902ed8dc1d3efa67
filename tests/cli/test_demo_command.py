"""`prism demo`: a true table of the model in the package, and nothing left behind."""

import json
import os

import psutil
import pytest
from tests.cli.commands import call

from prism.demo import BATCH, plans_for


def test_the_demo_compares_every_plan_and_ends_with_one_json_line(monkeypatch, capsys):
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
    assert by_plan["seq:2:full"]["exchanged_bytes"] > by_plan["seq:2:L4"]["exchanged_bytes"] > 0
    assert report["link"]["shape"] == "1gbit,1ms" and "emulated" in report["link"]["kind"]
    assert any("emulated" in line for line in lines)
    if len(os.sched_getaffinity(0)) >= 2:
        assert report["own_core_per_node"] is True
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize(
    "option, value, sentence",
    [
        ("--link", "5quux", "'5quux' in link"),
        ("--nodes", "1", "--nodes must be at least 2, not 1"),
        ("--images", "0", "--images must be at least 1, not 0"),
        ("--images", "401", "--images 401 is more than the 400"),
    ],
)
def test_bad_options_are_one_sentence_before_anything_starts(
    monkeypatch, capsys, option, value, sentence
):
    result = call(monkeypatch, capsys, "demo", option, value)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err and result.err.count("\n") == 1
