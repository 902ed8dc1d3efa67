"""Integration of samples: exact where the trapezoid rule is, and silent about nothing."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.energy.boards import HandClock, hwmon_chip

from prism.energy import EnergyMeter
from prism.energy.ina3221 import Ina3221, open_ina3221
from prism.energy.sampler import Sample, Sampler


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


def bench(see: Callable[[float], Sample], **options: float) -> tuple[HandClock, Sampler]:
    clock = HandClock(0.0)
    probe = Bench(clock, see, **options)  # type: ignore[arg-type]
    return clock, Sampler(probe, clock=clock, background=False)


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
        ({0}, "the first sample failed: bus error"),
        ({11}, "the last sample failed: bus error"),
        ({2, 3, 5}, "3 of 11 samples failed, last: bus error"),
        ({4}, None),
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
    assert window.reading.duration_s == pytest.approx(0.1 + 1 + 0.2)
    assert window.reading.watts == pytest.approx(5)


@dataclass(frozen=True)
class Counting:
    """A real probe that tells when it has been read often enough."""

    probe: Ina3221
    calls: itertools.count[int]
    enough: threading.Event
    period_s: float = 0.001
    resolution_s: float = 0.0
    scope: str = "VDD_IN"

    def sample(self) -> Sample:
        if next(self.calls) == 50:
            self.enough.set()
        return self.probe.sample()


def test_the_background_thread_follows_a_changing_rail_and_ends_with_the_window(
    tmp_path: Path,
) -> None:
    chip = hwmon_chip(tmp_path, 1, {"VDD_IN": (5000, 1000)})
    enough, done = threading.Event(), threading.Event()
    probe = Counting(open_ina3221(tmp_path), itertools.count(), enough)
    meter = EnergyMeter("ina3221", Sampler(probe))

    def load() -> None:
        for milliamperes in itertools.cycle([1000, 3000]):
            if done.wait(0.0005):
                return
            (tmp_path / "next").write_text(str(milliamperes))
            os.replace(tmp_path / "next", chip / "curr1_input")

    writer = threading.Thread(target=load)
    writer.start()
    try:
        with meter.window() as outer, meter.window() as inner:
            assert enough.wait(30)
    finally:
        done.set()
        writer.join()
    for window in (inner, outer):
        watts = window.reading.watts
        assert watts is not None and 5.0 < watts < 15.0
    assert not [thread for thread in threading.enumerate() if thread.name == "prism-energy"]


def test_windows_of_many_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    hwmon_chip(tmp_path, 1, {"VDD_IN": (5000, 1000)})
    probe = replace(open_ina3221(tmp_path), period_s=0.001)
    meter = EnergyMeter("ina3221", Sampler(probe))
    watts: list[float | None] = []

    def work() -> None:
        for _ in range(20):
            with meter.window() as window:
                threading.Event().wait(0.001)
            watts.append(window.reading.watts)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watts == [pytest.approx(5.0)] * 80
    assert not [thread for thread in threading.enumerate() if thread.name == "prism-energy"]
