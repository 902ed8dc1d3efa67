"""How a profile looks without a terminal, and how what was left out is told."""

import sys
import threading
from dataclasses import replace

import pytest
from tests.profiler.targets import LawfulTarget

from prism.cli.durations import read_seconds, tell_seconds
from prism.cli.profile_view import left_out_lines, show, shown_progress, summary
from prism.cli.ticker import Ticker, waiting
from prism.perfmap import LeftOutPoint
from prism.profiler import Profiler, Progress, Settings


class Log:
    """A stderr that is no terminal, and tells when a line with certain words arrives."""

    def __init__(self, words):
        self.text, self.arrived, self._words = "", threading.Event(), words

    def write(self, text):
        self.text += text
        if self._words in self.text:
            self.arrived.set()

    def flush(self):
        pass

    def isatty(self):
        return False


def test_lines_come_while_nothing_else_happens(capsys):
    said = threading.Semaphore(0)

    def say():
        said.release()
        return "still at it"

    with Ticker(say, every_s=0.001):
        for _ in range(2):
            assert said.acquire(timeout=60)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2 and set(lines) == {"still at it"}


def test_one_long_pass_is_told_again_and_again_with_how_long_it_runs(monkeypatch):
    log = Log("length 1370 for 0 s\nprofile: 31 of 120 passes, 95 s left; now seq:2:full, batch 16")
    monkeypatch.setattr(sys, "stderr", log)
    with shown_progress(every_s=0.001) as tell:
        tell(Progress(31, 120, 95.2, "seq:2:full, batch 16, length 1370"))
        assert log.arrived.wait(60), log.text


def test_before_anything_is_known_the_line_says_no_time(monkeypatch):
    log = Log("profile: 0 of 120 passes; now link for 0 s\n")
    monkeypatch.setattr(sys, "stderr", log)
    with shown_progress(every_s=0.001) as tell:
        tell(Progress(0, 120, None, "link"))
        assert log.arrived.wait(60), log.text


def test_what_is_quick_says_nothing(capsys):
    with waiting("loading"), shown_progress() as tell:
        tell(Progress(0, 120, None, "link"))
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def perf(tmp_path):
    target = LawfulTarget()
    settings = Settings(batches=(1, 4, 16), budget_s=25.0)
    path = tmp_path / "map.json"
    return Profiler(target, settings, path, lambda progress: None, "1.2.3", target.clock).run()


def test_what_was_left_out_is_told_with_the_budget_that_would_measure_it(perf, tmp_path, capsys):
    path = tmp_path / "map.json"
    show(perf, path)
    text = capsys.readouterr().out
    assert f"{len(perf.measurements)} points measured: batch 1, " in text
    assert f"{len(perf.left_out)} more points did not fit into the budget of 25s" in text
    document = summary(perf, path)
    assert len(document["left_out"]) == len(perf.left_out) > 0
    assert set(document["left_out"][0]) == {
        *("plan", "batch", "length", "predicted_s", "expected_s")
    }
    wanted = next(line for line in left_out_lines(perf) if "would measure" in line)
    more = Settings(batches=(1, 4, 16), budget_s=read_seconds("", wanted.split()[1]))
    target = LawfulTarget()
    again = Profiler(target, more, path, lambda progress: None, "1.2.3", target.clock).run()
    assert not again.left_out


def test_points_are_told_by_plan_and_plans_that_never_ran_apart(perf):
    points = (
        LeftOutPoint("seq:2:full", 4, 197, 0.5),
        LeftOutPoint("seq:2:full", 16, 197, 1.5),
        LeftOutPoint("seq:2:L10", 1, 197),
    )
    lines = left_out_lines(replace(perf, left_out=points))
    assert "predicted from those measured: seq:2:full at 4x197, 16x197" in lines[1]
    assert "plans that never ran, and cannot be chosen: seq:2:L10" in lines[2]
    assert left_out_lines(replace(perf, left_out=())) == []


def test_of_many_plans_some_are_told(perf):
    points = tuple(LeftOutPoint(f"seq:2:L{means}", 4, 197, 0.5) for means in range(1, 10))
    line = left_out_lines(replace(perf, left_out=points))[1]
    assert line.count(" at 4x197") == 6 and line.endswith("; 3 more plans, all named in the map")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1s"), (25, "25s"), (119.5, "120s"), (121, "3m"), (300, "5m")]
)
def test_times_are_told_as_they_are_read_and_never_too_short(seconds, text):
    assert tell_seconds(seconds) == text
    assert read_seconds("--budget", text) >= seconds
