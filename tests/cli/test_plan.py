"""`prism plan`: what it answers, and what it refuses."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.planner.clusters import make_map

from prism.cli import main
from prism.perfmap import Accuracy, HeldOut, PerformanceMap
from prism.plan import Plan
from prism.planner import CostModel, decide
from prism.record import LinkState

PAPER = ("--map", "paper")
AS_PUBLISHED = ("--allow", "local", "--allow", "seq:2:full", "--allow", "seq:2:L10")
PAGE = Path(__file__).parents[2] / "docs" / "plan.md"


@pytest.fixture
def ask(monkeypatch, capsys):
    """Return a function that runs `prism plan` here: exit code, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["prism", "plan", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def ask_json(ask):
    def run(*words):
        code, out, err = ask(*words, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


def test_the_answer_is_the_planners(ask_json):
    told = ask_json(*PAPER, "--batch", 8)
    perf = PerformanceMap.paper()
    expected = decide(CostModel(perf), 8, 197, perf.link.state()).to_dict()
    assert {key: told[key] for key in expected} == json.loads(json.dumps(expected))
    assert told["choice"] == "batch:2" and told["second_board"]["helps"]
    assert told["second_board"]["gain"] == pytest.approx(0.485 / told["predicted_s"])
    request = told["request"]
    assert (request["map"], request["batch"], request["length"]) == ("paper", 8, 197)
    assert request["link"] == {"bandwidth_bps": 400e6, "latency_s": 0.0}
    assert request["objective"] == "latency" and told["held_out_error"] is None


def test_the_link_given_is_the_link_asked_for(ask_json):
    told = ask_json(*PAPER, "--batch", 8, "--bandwidth", "50mbit", "--latency", "2ms")
    assert told["request"]["link"] == {"bandwidth_bps": 50e6, "latency_s": 0.002}
    link = LinkState(50e6, 0.002)
    expected = decide(CostModel(PerformanceMap.paper()), 8, 197, link)
    assert (told["choice"], told["predicted_s"]) == (str(expected.choice), expected.predicted_s)


def test_only_the_plans_allowed_are_chosen_from_and_local_always_is(ask_json):
    told = ask_json(*PAPER, "--batch", 8, "--allow", "seq:2:L10")
    assert told["choice"] == "seq:2:L10"
    allowed = {each["plan"] for each in told["candidates"] if each["allowed"]}
    assert allowed == {"local", "seq:2:L10"}
    assert ask_json(*PAPER, "--batch", 4, "--allow", "seq:2:L10")["choice"] == "local"


def test_a_lossy_plan_needs_a_budget(ask_json):
    def leave(*words):
        told = ask_json(*PAPER, "--batch", 8, *words)
        return {each["plan"]: each["allowed"] for each in told["candidates"]}["seq:2:L10"]

    assert not leave()
    assert not leave("--max-accuracy-drop", "0.02")
    assert leave("--max-accuracy-drop", "0.03")


@pytest.fixture
def measured(tmp_path):
    """Return the file of a map whose only lossy plans have, and lack, an interval."""
    known = Accuracy("seq:2:L10", 0.99, 0.005, 400, "", "agreement", 0.002, 0.012)
    path = tmp_path / "map.json"
    replace(make_map(), accuracy=(known,)).save(path)
    return path


def test_the_table_tells_what_is_lost_how_sure_that_is_and_of_what(ask, measured):
    _, out, _ = ask("--map", measured, "--batch", 1)
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith(" ") and line}
    assert "-0.50% (to -1.20%) agreement" in rows["seq:2:L10"]
    assert "unknown" in rows["seq:3:L10"] and "exact" in rows["local"]


def test_a_budget_counts_the_interval_unless_the_point_estimate_is_asked_for(ask_json, measured):
    def told(*words):
        found = ask_json("--map", measured, "--batch", 1, "--max-accuracy-drop", "0.01", *words)
        lossy = next(each for each in found["candidates"] if each["plan"] == "seq:2:L10")
        return found["request"]["point_estimate"], lossy

    careful, lossy = told()
    assert not careful and not lossy["allowed"] and "upper end" in lossy["reason"]
    assert (lossy["accuracy_drop"], lossy["accuracy_metric"]) == (0.005, "agreement")
    assert (lossy["accuracy_drop_low"], lossy["accuracy_drop_high"]) == (0.002, 0.012)
    asked, lossy = told("--point-estimate")
    assert asked and lossy["allowed"]


def test_a_board_that_is_away_is_not_planned_with(ask, ask_json):
    told = ask_json(*PAPER, "--batch", 8, "--alive", "node0")
    assert told["choice"] == "local" and not told["second_board"]["helps"]
    _, out, _ = ask(*PAPER, "--batch", 8, "--alive", "node0")
    assert "the map has no plan with another board" in out
    both = ask_json(*PAPER, "--batch", 8, "--alive", "node1", "--alive", "node0")
    assert both["choice"] == "batch:2"


def test_the_sentence_answers_yes_or_no_with_the_gain(ask):
    _, out, _ = ask(*PAPER, "--batch", 8)
    assert "Would a second board help? Yes: batch:2 is predicted to need 252.8 ms" in out
    assert "48% less (1.92x)" in out
    _, out, _ = ask(*PAPER, "--batch", 1)
    assert "help? No: the best plan with another board, seq:2:full, is predicted to need" in out


def asked_both(out):
    return out.rstrip("\n").splitlines()[-1]


def with_precisions(tmp_path, *losses, shapes=("seq:2:full", "seq:2:L10", "local:int8")):
    path = tmp_path / "map.json"
    replace(make_map(shapes=shapes), accuracy=losses).save(path)
    return ("--map", path, "--batch", 8, "--bandwidth", "1gbit")


def test_the_last_sentence_sets_a_second_board_beside_a_precision(ask, ask_json, tmp_path):
    known = Accuracy("local:int8", 0.97, 0.004, 400, "", "accuracy", -0.003, 0.011)
    words = with_precisions(tmp_path, known)
    _, out, _ = ask(*words, "--max-accuracy-drop", "0.02")
    last = asked_both(out)
    assert last.startswith("A second board, or int8 on this one? A second board: ")
    assert re.search(r"A second board: [0-9.]+ ms, [12]\.[0-9]+x \(batch:3, exact\)\. ", last)
    lost = r"loses 0\.40 points of accuracy, at most 1\.10"
    assert re.search(rf"int8 on this one: [0-9.]+ ms, 3\.33x \(local:int8, {lost}\)\. ", last)
    assert re.search(rf"Both: [0-9.]+ ms, [5-9]\.[0-9]+x \(batch:3:int8, {lost}\)\. ", last)
    assert last.endswith(
        "half on this one: never measured; `prism profile MODEL --precisions float32,int8,half` "
        "does."
    )
    told = ask_json(*words, "--max-accuracy-drop", "0.02")["board_or_precision"]
    assert told["answer"] == last and told["half"] is None
    assert told["int8"] == {
        **{"plan": "local:int8", "gain": pytest.approx(1 / 0.3), "allowed": True},
        **{"accuracy_drop": 0.004, "accuracy_drop_high": 0.011, "accuracy_metric": "accuracy"},
        **{"energy_j": None, "derived": False, "predicted_s": pytest.approx(0.324 * 0.3)},
    }
    assert told["both"]["plan"] == "batch:3:int8" and told["second_board"]["plan"] == "batch:3"


def test_what_may_not_be_used_says_what_would_allow_it(ask, tmp_path):
    known = Accuracy("local:int8", 0.97, 0.004, 400, "", "accuracy", -0.003, 0.011)
    _, out, _ = ask(*with_precisions(tmp_path, known))
    assert asked_both(out).count("needs --max-accuracy-drop 0.011") == 2
    _, out, _ = ask(*with_precisions(tmp_path, replace(known, drop=-0.002)), "--failed", "node1")
    last = asked_both(out)
    assert "gains 0.20 points of accuracy, loses at most 1.10" in last
    assert "batch:2, exact, may not be used: as if it had just failed" in last or "batch:3" in last


def test_losses_that_nobody_measured_are_said_to_be_unknown(ask, tmp_path):
    _, out, _ = ask(*with_precisions(tmp_path), "--max-accuracy-drop", "0.02")
    last = asked_both(out)
    assert "(local:int8, its loss never measured)" in last
    assert "`prism evaluate MODEL DATA --map MAP` measures what a plan loses." in last
    assert re.search(r"^Derived from float32 .*: .*seq:2:L10:int8", out, re.M)


def test_without_precisions_the_command_that_measures_them_is_named(ask):
    _, out, _ = ask(*PAPER, "--batch", 8)
    assert asked_both(out) == (
        "A second board, or int8 or half on this one? A second board: 252.8 ms, 1.92x (batch:2, "
        "exact). half and int8 on this one: never measured; `prism profile MODEL --precisions "
        "float32,half,int8` does."
    )


def test_a_second_board_is_compared_with_the_best_that_one_may_do(ask_json, tmp_path):
    """At a batch of one there are no rows to split, and half the positions stall more than gain."""
    known = Accuracy("local:int8", 0.97, 0.0, 400)
    words = ("--max-accuracy-drop", "0.01", "--bandwidth", "20mbit")
    arguments = (*with_precisions(tmp_path, known)[:2], "--batch", 1, *words)
    told = ask_json(*arguments)
    assert told["choice"] == "local:int8" and not told["second_board"]["helps"]
    assert "on one board (local:int8)" in told["second_board"]["answer"]


def test_a_better_plan_that_may_not_be_used_is_named(ask):
    _, out, _ = ask(*PAPER, "--batch", 8, "--objective", "energy")
    assert "seq:2:L10 would need 3.31 J, but may not be used: lossy" in out
    # Energy of local was published up to a batch of 4 only.
    assert "against ~3.33 J" in out and "~ lies beyond" in out


def test_the_table_is_sorted_and_never_cut_off(ask, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    _, out, _ = ask(*PAPER, "--batch", 8, "--objective", "edp", "--latency", "2ms")
    shown = [line.split()[0] for line in out.splitlines() if re.match(r" (local|seq|batch:)", line)]
    assert shown == ["batch:2", "seq:2:L10", "local", "seq:2:full"] and "…" not in out


def test_explain_gives_the_reasons_and_what_was_left_out(ask):
    _, plain, _ = ask(*PAPER)
    _, out, _ = ask(*PAPER, "--explain")
    for text in ("chosen for its predicted latency", "a batch of 1 has too few rows", "arXiv"):
        assert text in out and text not in plain


def test_what_has_just_failed_is_left_alone_and_explained(ask, ask_json):
    _, out, _ = ask(*PAPER, "--batch", 8, "--failed", "batch:2", "--explain")
    assert re.search(r"^  batch:2 +as if it had just failed", out, re.M)
    told = ask_json(*PAPER, "--batch", 8, "--failed", "batch:2")
    assert told["choice"] == "local" and told["request"]["failed"] == ["batch:2"]
    node = ask_json(*PAPER, "--batch", 8, "--failed", "node1", "--allow", "seq:2:L10")
    assert node["choice"] == "local"
    reasons = {each["plan"]: each["reason"] for each in node["candidates"]}
    assert all("just failed" in why for plan, why in reasons.items() if plan != "local")
    _, out, _ = ask(*PAPER, "--failed", "local", "--explain")
    assert "Would a second board help? No: the best plan with another board, seq:2:full" in out


def test_a_sweep_leaves_alone_what_has_failed(ask_json):
    told = ask_json(*PAPER, "--sweep", "batch=2..8", "--failed", "batch:2")["sweep"]
    assert {point["choice"] for point in told["points"]} == {"local"}


def test_the_held_out_error_is_told(ask, ask_json, tmp_path):
    points = tuple(HeldOut("local", batch, 197, 1.0 + batch / 10, 1.0) for batch in (1, 2, 3))
    replace(make_map(), held_out=points).save(tmp_path / "map.json")
    told = ask_json("--map", tmp_path / "map.json", "--batch", 4)["held_out_error"]
    assert told == {"points": 3, "median": pytest.approx(0.2), "worst": pytest.approx(0.3)}
    _, out, _ = ask("--map", tmp_path / "map.json", "--batch", 4)
    assert "at 3 points held out of the map: median 20.0%, worst 30.0%" in out


def test_a_map_with_several_lengths_is_asked_for_the_longest(ask_json, tmp_path):
    perf = make_map()
    shorter = [replace(entry, length=50) for entry in perf.measurements]
    several = replace(perf, measurements=(*perf.measurements, *shorter))
    several.save(tmp_path / "map.json")
    request = ask_json("--map", tmp_path / "map.json")["request"]
    assert request["length"] == 197
    assert request["sources"]["length"] == "the longest the model takes"
    assert ask_json("--map", tmp_path / "map.json", "--length", 50)["request"]["length"] == 50


def test_a_bandwidth_sweep_tells_the_crossover_beside_the_published_one(ask, ask_json):
    words = (*PAPER, "--sweep", "bandwidth", "--batch", 8, *AS_PUBLISHED)
    told = ask_json(*words)
    (change,) = told["sweep"]["crossovers"]
    assert (change["before"], change["after"]) == ("local", "seq:2:L10")
    assert told["published"]["predicted_bps"] == pytest.approx(change["at"])
    assert told["published"]["published_bps"] == 340e6
    # All of the 90.4 ms of communication at 400 Mbit/s may grow to what 485 ms leaves.
    alike_bps = 400e6 * 90.4 / (485.0 - 414.7 + 90.4)
    assert told["published"]["all_communication_scales_bps"] == pytest.approx(alike_bps)
    _, out, _ = ask(*words)
    assert re.search(r"^ +5 +182.5 +local +1.00x$", out, re.M)
    assert re.search(r"^ +182.5 +500 +seq:2:L10 +1.01x to 1.20x$", out, re.M)
    assert "about 340 Mbit/s" in out and "225 Mbit/s" in out


def test_the_published_crossover_is_told_of_nothing_else(ask_json, tmp_path):
    other = (*PAPER, "--sweep", "bandwidth", "--batch", 16, *AS_PUBLISHED)
    assert ask_json(*other)["published"] is None
    make_map().save(tmp_path / "map.json")
    words = ("--sweep", "bandwidth", "--batch", 8, "--allow", "seq:2:L10")
    assert ask_json("--map", tmp_path / "map.json", *words)["published"] is None


def test_a_batch_sweep_tells_where_the_choice_changes(ask, ask_json):
    told = ask_json(*PAPER, "--sweep", "batch=1..8", "--allow", "seq:2:L10")["sweep"]
    assert told["crossovers"] == [{"at": 5, "before": "local", "after": "seq:2:L10"}]
    assert [point["at"] for point in told["points"]] == [*range(1, 9)]
    _, out, _ = ask(*PAPER, "--sweep", "batch=2..3")
    assert "Over this whole range the choice is batch:2." in out


def test_a_sweep_covers_the_link_asked_for(ask_json):
    points = ask_json(*PAPER, "--sweep", "bandwidth", "--bandwidth", "2gbit")["sweep"]["points"]
    assert (points[0]["at"], points[-1]["at"]) == (pytest.approx(5e6), pytest.approx(2e9))


def test_a_plot_is_drawn(ask, tmp_path):
    pytest.importorskip("matplotlib")
    target = tmp_path / "sweep.png"
    code, out, _ = ask(*PAPER, "--sweep", "bandwidth", "--batch", 8, "--plot", target)
    assert code == 0 and f"drawn: {target}" in out
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--bandwidth -5mbit", "--bandwidth must be a rate above 0, .* not '-5mbit'"),
        ("--bandwidth 400", "not '400'"),
        ("--bandwidth 0mbit", "not '0mbit'"),
        ("--bandwidth 400mbit,2ms", "not '400mbit,2ms'"),
        ("--latency=-1ms", "--latency must be a time .* not '-1ms'"),
        ("--latency none", "not 'none'"),
        ("--objective speed", "unknown objective 'speed'"),
        ("--max-accuracy-drop 1.5", "must lie in 0..1 .* not 1.5"),
        ("--max-accuracy-drop nan", "not nan"),
        ("--allow nonsense", "'nonsense' is not a plan"),
        ("--allow seq:2:L11", "seq:2:L11 cannot be predicted: .*; the map has .*seq:2:L10"),
        ("--allow batch:4", "batch:4 needs 4 nodes"),
        ("--failed nonsense", "'nonsense' is not a plan"),
        ("--failed seq:2:L11", "--failed: seq:2:L11 cannot be predicted"),
        ("--failed node7", "'node7' is not a plan"),
        ("--batch 0", "--batch must be at least 1, not 0"),
        ("--length 198", "--length must lie in 1..197"),
        ("--alive node1", "first node0, not node1"),
        ("--alive node0 --alive node7", "node7 is not in the map"),
        ("--sweep time", "--sweep 'time' is not understood"),
        ("--sweep batch=9..1", "not 9..1"),
        ("--sweep batch=1..9999999", "at most 1024 sizes"),
        ("--sweep bandwidth=9mbit..1mbit", "not 9mbit..1mbit"),
        ("--sweep bandwidth=-1mbit..9mbit", "not '-1mbit'"),
        ("--plot x.png", "add --sweep"),
    ],
)
def test_a_bad_question_is_refused_in_one_sentence(ask, words, reason):
    code, out, err = ask(*PAPER, *words.split())
    assert (code, out) == (2, "")
    assert err.startswith("prism: ") and err.count("\n") == 1 and re.search(reason, err)


def broken(text):
    document = json.loads(text)
    return {
        "corrupt": (text.replace(":", ";", 1), "corrupt or truncated"),
        "truncated": (text[: len(text) // 2], "corrupt or truncated"),
        "empty": ("", "corrupt or truncated"),
        "foreign": ('{"name": "something else"}', "no performance map"),
        "list": ("[1, 2]", "no performance map"),
        "future": (json.dumps({**document, "version": 99}), "format version 99 is not 1"),
        "wrong": (json.dumps({**document, "nodes": 5}), "nodes must be a list"),
        "without local": (json.dumps({**document, "measurements": []}), "no measurement of local"),
    }


@pytest.mark.parametrize("kind", broken("{}"))
def test_a_broken_map_is_refused_in_one_sentence(ask, tmp_path, kind):
    path = tmp_path / "map.json"
    text, reason = broken(json.dumps(PerformanceMap.paper().to_dict()))[kind]
    path.write_text(text)
    target = tmp_path / "sweep.png"
    for more in ((), ("--sweep", "batch", "--plot", target)):
        code, out, err = ask("--map", path, *more)
        assert (code, out) == (2, "") and reason in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("metric", ["energy", "edp"])
def test_a_map_without_energy_cannot_answer_for_energy(ask, tmp_path, metric):
    make_map(energy=False).save(tmp_path / "map.json")
    code, out, err = ask("--map", tmp_path / "map.json", "--objective", metric)
    assert (code, out) == (2, "") and "no energy" in err


def run_python(code, *words):
    command = [sys.executable, "-c", code, "plan", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_question_is_answered_without_torch():
    code = (
        "import sys\nfrom prism.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    done = run_python(code, *PAPER, "--batch", 8, "--json")
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert json.loads(done.stdout)["choice"] == "batch:2"


def test_a_missing_map_exits_with_2(tmp_path):
    done = run_python("from prism.cli import main; main()", "--map", tmp_path / "none.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not exist" in done.stderr and "Traceback" not in done.stderr


def test_a_plot_without_matplotlib_names_the_extra(tmp_path):
    code = "import sys; sys.modules['matplotlib'] = None\nfrom prism.cli import main; main()"
    target = tmp_path / "sweep.png"
    done = run_python(code, *PAPER, "--sweep", "batch", "--plot", target)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'prism-edge[plots]'" in done.stderr and not target.exists()


def commands():
    """Return the commands that the page shows, each with the output below it."""
    shown = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S):
        for command in re.split(r"^\$ ", block, flags=re.M)[1:]:
            line, _, output = command.partition("\n")
            if line.startswith("prism plan --map paper") and "--plot" not in line:
                shown.append((line, output))
    return shown


@pytest.mark.parametrize(("line", "output"), commands(), ids=[line for line, _ in commands()])
def test_the_page_shows_what_the_command_prints(ask, line, output):
    code, out, _ = ask(*shlex.split(line)[2:])
    assert (code, out.strip("\n")) == (0, output.strip("\n"))


def test_the_pages_table_over_batch_sizes_is_the_planners():
    perf = PerformanceMap.paper()
    model, link = CostModel(perf), perf.link.state()
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE.read_text("utf-8"), re.M)
    assert [batch for batch, _ in rows] == ["1", "2", "4", "8", "16", "32"]
    for batch, cells in rows:
        local = model.predict(Plan(), int(batch), 197, link).total_s
        expected = [f"{local * 1e3:.1f}"]
        for allow in ([Plan.parse("seq:2:full"), Plan.parse("seq:2:L10")], None):
            found = decide(model, int(batch), 197, link, allow=allow)
            gain = local / found.predicted_s
            expected += [f"`{found.choice}`", f"{found.predicted_s * 1e3:.1f}", f"{gain:.2f}x"]
        assert cells.split(" | ") == expected
