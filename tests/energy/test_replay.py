"""A recorded trace: its integral, its repetition, and the rows it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.energy.boards import HandClock

from prism.energy import EnergyMeter
from prism.energy.replay import Replay, read_trace
from prism.errors import ConfigError

TRACE = "time_s,watts,note\n5,2,a\n6,4,b\n8,4,c\n"


def test_a_trace_starts_with_the_first_window_and_goes_round(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(TRACE)
    clock = HandClock()
    meter = EnergyMeter("replay", Replay(read_trace(file), scope="replay", clock=clock))
    clock.advance(77)
    joules = []
    for seconds in (0.5, 0.5, 2, 3.5):
        with meter.window() as window:
            clock.advance(seconds)
        joules.append(window.reading.joules)
    assert joules == pytest.approx([1.25, 1.75, 8, 11 + 1.25])
    assert window.reading.quality == "estimated"


@given(
    st.lists(st.tuples(st.floats(0.1, 5), st.floats(0, 50)), min_size=2, max_size=10),
    st.floats(0, 100),
)
def test_energy_grows_and_every_round_adds_the_same(
    steps: list[tuple[float, float]], at_s: float
) -> None:
    trace, now_s = [], 0.0
    for step_s, watts in steps:
        now_s += step_s
        trace.append((now_s, watts))
    replay = Replay(trace, scope="replay")
    length_s = trace[-1][0] - trace[0][0]
    round_j = replay.energy_until(at_s + length_s) - replay.energy_until(at_s)
    whole_j = sum(
        (w0 + w1) / 2 * (t1 - t0) for (t0, w0), (t1, w1) in zip(trace, trace[1:], strict=False)
    )
    assert round_j == pytest.approx(whole_j, rel=1e-6, abs=1e-6)
    assert replay.energy_until(at_s + 0.05) >= replay.energy_until(at_s) - 1e-9


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seconds,watts\n0,1\n1,1\n", "lacks the column time_s"),
        ("", "lacks the column time_s and watts"),
        ("time_s,watts\n0,1\n", "has 1 rows"),
        ("time_s,watts\n0,1\n1\n", "line 3 is not two numbers"),
        ("time_s,watts\n0,1\n0,1\n", "line 3: time 0.0 s does not come after 0.0 s"),
        ("time_s,watts\n0,-1\n", "line 2.*not negative"),
        ("time_s,watts\n0,nan\n", "line 2"),
    ],
)
def test_broken_traces_are_refused_by_line(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_trace(file)


def test_an_unreadable_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.csv cannot be read"):
        read_trace(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.csv cannot be read"):
        read_trace(tmp_path / "binary.csv")
