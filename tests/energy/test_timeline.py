"""Integration of samples: exact where the trapezoid rule is, and silent about nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.energy.boards import HandClock, HandSampler

from prism.energy import EnergyMeter
from prism.energy.timeline import Sample, Timeline


@dataclass
class Bench:
    """A probe whose sample is any function of time, under a hand-moved clock."""

    clock: HandClock
    see: Callable[[float], Sample]
    scope: str = "bench supply"
    period_s: float = 0.05
    resolution_s: float = 0.0

    def sample(self) -> Sample:
        return self.see(self.clock())


def bench(see: Callable[[float], Sample], **options: float) -> tuple[HandClock, HandSampler]:
    clock = HandClock(0.0)
    probe = Bench(clock, see, **options)  # type: ignore[arg-type]
    return clock, HandSampler(probe, clock)


@given(st.floats(0.1, 50), st.floats(0, 10), st.lists(st.floats(0.001, 5), min_size=1, max_size=20))
def test_linear_power_is_integrated_exactly(base: float, slope: float, steps: list[float]) -> None:
    clock, sampler = bench(lambda t: Sample(watts=base + slope * t))
    with EnergyMeter("bench", sampler).window() as window:
        for step in steps:
            clock.advance(step)
            sampler.tick()
    end = clock.now_s
    assert window.reading.joules == pytest.approx(base * end + slope * end * end / 2, rel=1e-6)
    assert window.reading.quality == "measured"


def test_a_window_shorter_than_the_period_uses_its_two_ends() -> None:
    clock, sampler = bench(lambda t: Sample(watts=4 + 100 * t))
    with EnergyMeter("bench", sampler).window() as window:
        clock.advance(0.01)
    assert window.reading.joules == pytest.approx(0.01 * 4.5)


def test_nested_windows_share_samples_and_idle_gaps_are_nobodys() -> None:
    clock, sampler = bench(lambda t: Sample(watts=5.0))
    meter = EnergyMeter("bench", sampler)
    with meter.window() as outer:
        clock.advance(1)
        with meter.window() as inner:
            clock.advance(2)
        clock.advance(3)
    clock.advance(1000)
    sampler.tick()
    with meter.window() as later:
        clock.advance(1)
    joules = [window.reading.joules for window in (inner, outer, later)]
    assert joules == [pytest.approx(10), pytest.approx(30), pytest.approx(5)]


def test_a_counter_beats_integration_but_not_below_its_resolution() -> None:
    clock, sampler = bench(lambda t: Sample(joules=3 * t, watts=5.0), resolution_s=0.1)
    meter = EnergyMeter("bench", sampler)
    with meter.window() as long:
        clock.advance(1)
    with meter.window() as short:
        clock.advance(0.01)
    assert (long.reading.joules, long.reading.quality) == (pytest.approx(3), "measured")
    assert (short.reading.joules, short.reading.quality) == (pytest.approx(0.05), "estimated")


def test_a_counter_alone_says_nothing_about_too_short_a_window() -> None:
    clock, sampler = bench(lambda t: Sample(joules=3 * t), resolution_s=0.1)
    with EnergyMeter("bench", sampler).window() as window:
        clock.advance(0.01)
    assert window.reading.joules is None
    assert "lasted 10 ms" in str(window.reading.reason)


@pytest.mark.parametrize("see", [lambda t: Sample(watts=0.0), lambda t: Sample(joules=-t)])
def test_no_energy_is_a_broken_sensor(see: Callable[[float], Sample]) -> None:
    clock, sampler = bench(see)
    with EnergyMeter("bench", sampler).window() as window:
        clock.advance(1)
    assert window.reading.joules is None and "reported" in str(window.reading.reason)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({0, 1}, "2 of 12 samples failed, last: bus error"),
        ({10, 11}, "2 of 12 samples failed, last: bus error"),
        ({2, 3, 5}, "3 of 12 samples failed, last: bus error"),
        ({0}, None),
        ({4}, None),
        ({11}, None),
    ],
)
def test_failed_samples_are_bridged_only_when_few(broken: set[int], reason: str | None) -> None:
    calls = itertools.count()

    def see(now_s: float) -> Sample:
        if next(calls) in broken:
            raise OSError("bus error")
        return Sample(watts=5.0)

    clock, sampler = bench(see)
    with EnergyMeter("bench", sampler).window() as window:
        for _ in range(10):
            clock.advance(1)
            sampler.tick()
        clock.advance(1)
    assert window.reading.reason == reason
    assert window.reading.joules == (None if reason else pytest.approx(55))


def test_a_slow_sensor_is_dated_to_the_middle_of_its_reading() -> None:
    delays_s = iter([0.2, 0.4])

    def see(now_s: float) -> Sample:
        clock.advance(next(delays_s))
        return Sample(watts=5.0)

    clock, sampler = bench(see)
    with EnergyMeter("bench", sampler).window() as window:
        clock.advance(1)
    assert window.reading.duration_s == pytest.approx(0.2 + 1)
    assert window.reading.watts == pytest.approx(5)
    # The nearest samples are 0.1 s after its beginning and 0.2 s after its end.
    assert window.reading.quality == "estimated"


@given(
    st.lists(st.floats(0.001, 1), min_size=3, max_size=20),
    st.lists(st.floats(0.5, 20), min_size=20, max_size=20),
    st.data(),
)
def test_windows_side_by_side_use_what_the_whole_uses(
    steps: list[float], watts: list[float], data: st.DataObject
) -> None:
    times = list(itertools.accumulate(steps))
    at_s = sorted(data.draw(st.floats(0, times[-1])) for _ in range(3))
    row, marks = Timeline("bench", 0.0), []
    counted_j = 0.0
    for number, time_s in enumerate([0.0, *times]):
        while len(marks) < 3 and at_s[len(marks)] <= time_s:
            marks.append(row.mark(at_s[len(marks)]))
        counted_j += watts[number % 20]
        row.add(time_s, Sample(joules=counted_j, watts=watts[number % 20]))
    parts = [row.reading(*ends).joules for ends in itertools.pairwise(marks)]
    whole = row.reading(marks[0], marks[2]).joules
    if None not in parts:
        assert sum(parts) == pytest.approx(whole)


@pytest.mark.parametrize("counter", [False, True])
def test_a_window_asked_for_at_once_goes_on_at_the_power_seen_last(counter: bool) -> None:
    def seen(now_s: float) -> Sample:
        return Sample(joules=5 * now_s) if counter else Sample(watts=5.0)

    row = Timeline("bench", 0.001)
    begin = row.mark(0.0)
    for time_s in (0.0, 0.05, 0.10):
        row.add(time_s, seen(time_s))
    short, long = row.mark(0.12), row.mark(0.104)
    assert row.reading(begin, short).joules == pytest.approx(0.6)
    assert row.reading(begin, short).quality == "estimated"  # a sixth of it is a guess
    assert row.reading(begin, long).joules == pytest.approx(0.52)
    assert row.reading(begin, long).quality == "measured"  # a twenty-fifth is
    row.add(0.121, seen(0.121))
    assert row.reading(begin, short).joules == pytest.approx(0.6)
    assert row.reading(begin, short).quality == "measured"


def test_what_comes_after_a_window_changes_its_reading_once() -> None:
    row = Timeline("bench", 0.0)
    begin = row.mark(0.0)
    row.add(0.0, Sample(watts=4.0))
    end = row.mark(1.0)
    row.add(2.0, Sample(watts=8.0))
    final = row.reading(begin, end)
    assert final.joules == pytest.approx((4 + 6) / 2)
    for time_s in (3.0, 4.0):
        row.add(time_s, Sample(watts=100.0))
        row.fail("bus error")
    assert row.reading(begin, end) == final
    row.restart()
    assert row.reading(begin, end) == final


def test_a_window_that_was_never_sampled_uses_the_power_before_it_or_says_so() -> None:
    row = Timeline("bench", 0.0)
    begin, end = row.mark(0.0), row.mark(1.0)
    assert "not read often enough" in str(row.reading(begin, end).reason)
    row.add(1.0, Sample(watts=5.0))
    begin, end = row.mark(1.5), row.mark(2.0)
    reading = row.reading(begin, end)
    assert (reading.joules, reading.quality) == (pytest.approx(2.5), "estimated")
    row.restart()
    begin, end = row.mark(100.0), row.mark(101.0)
    assert row.reading(begin, end).joules is None
