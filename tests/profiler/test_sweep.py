"""The sweep on a cluster that obeys a known law; interrupted anywhere, it loses next to nothing."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.profiler.targets import LLAMA, LawfulTarget

from prism.errors import MapError
from prism.perfmap import PerformanceMap
from prism.plan import Plan
from prism.planner import CostModel, decide
from prism.profiler import Profiler, Settings

ROOT = Path(__file__).parents[2]
OLD = b"what was measured last year"
SMALL = Settings(batches=(1, 4), segments=(4,), passes=60, held_out=3)


def profile(target, path, settings=SMALL, report=lambda progress: None):
    return Profiler(target, settings, path, report, "1.2.3", target.clock).run()


def partial(path):
    return path.with_name(path.name + ".partial")


def figures(perf):
    """What a map says, without when and how it came to be."""
    return replace(perf, date="", seconds_spent=0.0, passes=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "map.json"


def interrupt(path, stop_at, settings=SMALL):
    """Profile until Ctrl-C; return the passes made."""
    target = LawfulTarget(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        profile(target, path, settings)
    return target.log


@pytest.mark.parametrize("speeds", [(1.0, 1.0), (1.0, 2.5)])
def test_a_lawful_cluster_is_found_as_it_is(path, speeds):
    target = LawfulTarget(speeds, noise=0.02)
    perf = profile(target, path, Settings())
    assert PerformanceMap.load(path) == perf
    assert not partial(path).exists()
    assert perf.link.bandwidth_bps == pytest.approx(100e6, rel=0.02)
    assert perf.link.latency_s == pytest.approx(0.003)
    assert perf.passes == len(target.log) <= 205
    assert (perf.prism_version, perf.accuracy) == ("1.2.3", target.accuracy)
    assert {entry.runs for entry in perf.measurements} == {5}
    assert all(entry.total_s.spread > 0 for entry in perf.measurements)
    assert len(perf.held_out) == 8
    assert {Plan.parse(each.plan).strategy for each in perf.held_out} == {
        "local",
        "batch",
        "sequence",
    }
    # Two nodes do not share an odd batch evenly, and only even ones were measured.
    even = [each for each in perf.held_out if each.plan != "batch:2" or each.batch % 2 == 0]
    assert max(abs(each.error) for each in even) < 0.06
    perf.check(target.identity)


@pytest.mark.parametrize(("slower", "shares"), [(1.3, ()), (2.0, (67.0, 33.0))])
def test_a_node_of_the_same_kind_is_slower_only_if_it_is_clearly_held_back(path, slower, shares):
    perf = profile(LawfulTarget((1.0, slower), kinds=(1.0, 1.0)), path)
    split = {Plan.parse(shape).shares for shape in perf.by_shape if shape.startswith("seq:2")}
    assert split == {shares}


def test_unequal_nodes_get_parts_in_proportion(path):
    perf = profile(LawfulTarget((1.0, 2.0, 4.0)), path)
    shares = {Plan.parse(shape).shares for shape in perf.by_shape if shape.startswith("seq:3")}
    assert shares == {(57.0, 29.0, 14.0)}
    alone_s = [
        perf.lookup(Plan.parse(plan), 4, 197).compute_s.median
        for plan in ("local", "local@node1", "local@node2")
    ]
    assert alone_s == pytest.approx([alone_s[0], 2 * alone_s[0], 4 * alone_s[0]])
    full = next(
        perf.lookup(Plan.parse(shape), 4, 197) for shape in perf.by_shape if "full" in shape
    )
    assert full.compute_s.median < alone_s[0]
    choice = decide(CostModel(perf), 12, 197, perf.link.state()).choice
    assert choice.strategy == "batch" and choice.shares == tuple(sorted(choice.shares)[::-1])


def test_nodes_of_one_kind_get_equal_parts_however_noisy(path):
    perf = profile(LawfulTarget((1.0, 1.0), noise=0.9), path)
    assert all(not Plan.parse(shape).shares for shape in perf.by_shape)


def test_plans_warm_up_once_and_then_take_turns(path):
    target = LawfulTarget()
    profile(target, path)
    largest = [plan for plan, batch, _ in target.log if batch == 4]
    plans = 7
    warm_up, *turns = [largest[i : i + plans] for i in range(0, len(largest), plans)]
    assert len(turns) >= 2
    assert all(sorted(turn) == sorted(warm_up) for turn in turns)
    assert all(one[0] != next_one[0] for one, next_one in pairwise(turns))


def test_progress_counts_to_the_end_with_the_time_left(path):
    told, target = [], LawfulTarget()
    perf = profile(target, path, report=told.append)
    assert (told[0].doing, told[0].done, told[0].left_s) == ("link", 0, None)
    assert [each.done for each in told[1:]] == list(range(len(target.log)))
    assert {each.total for each in told} == {perf.passes}
    assert all(each.left_s > 0 for each in told[2:])
    assert told[2].left_s > told[-1].left_s
    assert "seq:2:full, batch 4, length 197" in {each.doing for each in told}


def test_a_node_by_itself_is_profiled_without_a_link(path):
    target = LawfulTarget((1.0,))
    perf = profile(target, path)
    assert set(perf.by_shape) == {"local"}
    assert {each.plan for each in perf.held_out} == {"local"}


def test_texts_are_measured_at_several_lengths_and_rotary_models_without_lag(path):
    perf = profile(LawfulTarget(model=LLAMA, lengths=(32, 128)), path)
    assert {entry.length for entry in perf.measurements} == {32, 128}
    assert set(perf.by_shape) == {
        *("local", "local@node1", "batch:2", "seq:2:full", "seq:2:C4:f16", "seq:2:L4:f16")
    }


@pytest.mark.parametrize("stop_at", [0, 1, 7, 12, 20, 30, 42, 48])
def test_interrupted_anywhere_the_old_map_stays_and_only_the_rest_is_run(path, tmp_path, stop_at):
    whole = LawfulTarget()
    expected = profile(whole, tmp_path / "whole.json")
    path.write_bytes(OLD)
    first = interrupt(path, stop_at)
    assert path.read_bytes() == OLD
    noted = json.loads(partial(path).read_text())["records"]
    # At most the warming up of fourteen points and one turn of seven are missing.
    assert len(first) - 14 - 7 <= sum(map(len, noted.values())) <= len(first)
    target = LawfulTarget()
    perf = profile(target, path)
    assert figures(perf) == figures(expected)
    assert PerformanceMap.load(path) == perf
    assert sorted(each.name for each in tmp_path.iterdir()) == ["map.json", "whole.json"]
    again = Counter("{} {} {}".format(*point) for point in target.log)
    runs = Counter("{} {} {}".format(*point) for point in whole.log)
    for point, count in runs.items():
        done = len(noted.get(point, ()))
        # What is incomplete is warmed up again.
        assert again[point] == (0 if done == count - 1 else count - done)


def test_interrupted_twice_it_still_ends_with_the_same_map(path, tmp_path):
    expected = profile(LawfulTarget(), tmp_path / "whole.json")
    interrupt(path, 15)
    interrupt(path, 17)
    assert figures(profile(LawfulTarget(), path)) == figures(expected)


def test_a_link_that_cannot_be_timed_leaves_everything_as_it_was(path):
    class Broken(LawfulTarget):
        def link_times(self, sizes, repeats):
            raise KeyboardInterrupt

    path.write_bytes(OLD)
    with pytest.raises(KeyboardInterrupt):
        profile(Broken(), path)
    assert path.read_bytes() == OLD and not partial(path).exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"total_s"', '"minutes"'),
        lambda text: text.replace('"link": {', '"link": {"speed": 1, '),
    ],
    ids=["torn", "empty", "a list", "no fields", "foreign records", "foreign link"],
)
def test_notes_that_cannot_be_read_are_measured_again(path, spoil):
    interrupt(path, 40)
    partial(path).write_text(spoil(partial(path).read_text()))
    target = LawfulTarget()
    perf = profile(target, path)
    assert len(target.log) == perf.passes and not partial(path).exists()


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        (LawfulTarget(), replace(SMALL, segments=(5,))),
        (LawfulTarget(), replace(SMALL, passes=61)),
        (LawfulTarget(threads=2), SMALL),
        (LawfulTarget((1.0, 1.0, 1.0)), SMALL),
        (LawfulTarget(bandwidth_bps=20e6), SMALL),
        (LawfulTarget(latency_s=0.03), SMALL),
    ],
    ids=["segments", "passes", "threads", "nodes", "bandwidth", "latency"],
)
def test_notes_of_another_profile_are_not_continued(path, target, settings):
    interrupt(path, 40)
    perf = profile(target, path, settings)
    assert len(target.log) == perf.passes


def test_a_link_that_only_wavers_is_no_reason_to_begin_again(path):
    first = interrupt(path, 40)
    target = LawfulTarget(bandwidth_bps=85e6)
    perf = profile(target, path)
    assert len(target.log) < len(first)
    assert perf.link.bandwidth_bps == pytest.approx(100e6)  # over which most was measured


def test_devices_busy_while_the_link_is_timed_are_no_other_link(path, tmp_path):
    whole = profile(LawfulTarget(), tmp_path / "whole.json")
    first = interrupt(path, 40)
    target = LawfulTarget(disturbed=2)
    perf = profile(target, path)
    # What is incomplete is warmed up again, and the turn that was cut off is run anew.
    assert len(target.log) < whole.passes - len(first) + 14
    assert figures(perf) == figures(whole)


def test_a_folder_in_the_way_of_the_notes_is_named(path):
    partial(path).mkdir()
    with pytest.raises(MapError, match=r"map.json.partial cannot be read: .*; remove it"):
        profile(LawfulTarget(), path)


def test_a_full_disk_leaves_the_old_map_and_the_notes(path):
    """A process whose files may not grow any more: the kernel itself cuts the write off."""
    path.write_bytes(OLD)
    interrupt(path, 30)
    noted = partial(path).read_bytes()
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from prism.errors import MapError\n"
        "from tests.profiler.targets import LawfulTarget\n"
        "from tests.profiler.test_sweep import profile\n"
        "limit = int(sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "try:\n"
        "    profile(LawfulTarget(), Path(sys.argv[1]))\n"
        "except MapError as error:\n"
        "    print(error)\n"
    )
    limit = str(len(noted) + 200)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), limit],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout and "unchanged" in done.stdout
    assert path.read_bytes() == OLD
    assert json.loads(partial(path).read_bytes())["records"] == json.loads(noted)["records"]
    assert len(list(path.parent.iterdir())) == 2
    target = LawfulTarget()
    assert len(target.log) < profile(target, path).passes
