"""The thread that samples: it alone reads the sensor, and it ends when nobody needs it."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.energy.boards import hwmon_chip

from prism.energy import EnergyMeter
from prism.energy import sampler as sampling
from prism.energy.ina3221 import open_ina3221
from prism.energy.sampler import Sampler
from prism.energy.timeline import Sample


@dataclass
class Watched:
    """A probe that takes its time, and remembers who read it."""

    read: Callable[[], Sample] = lambda: Sample(watts=5.0)
    takes_s: float = 0.0
    period_s: float = 0.01
    resolution_s: float = 0.0
    scope: str = "watched"
    readers: list[threading.Thread] = field(default_factory=list)
    read_again: threading.Condition = field(default_factory=threading.Condition)

    def sample(self) -> Sample:
        time.sleep(self.takes_s)
        seen = self.read()
        with self.read_again:
            self.readers.append(threading.current_thread())
            self.read_again.notify_all()
        return seen

    def wait_for(self, samples: int) -> None:
        with self.read_again:
            assert self.read_again.wait_for(lambda: len(self.readers) >= samples, 30)


def settled(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return condition()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prism-energy"]


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of these tests do not outlive their windows for long."""
    monkeypatch.setattr(sampling, "_LINGER_S", 0.2)
    assert settled(lambda: not threads())


@pytest.mark.parametrize("takes_s", [0.0, 0.05])
def test_a_window_never_reads_the_sensor_itself(takes_s: float) -> None:
    probe = Watched(takes_s=takes_s)
    meter = EnergyMeter("watched", Sampler(probe))
    for _ in range(5):
        with meter.window() as window:
            pass
        assert window.reading.joules is None or window.reading.quality == "estimated"
    with meter.window() as window:
        probe.wait_for(len(probe.readers) + 3)
    assert threading.current_thread() not in probe.readers
    assert len(set(probe.readers)) == 1
    assert window.reading.watts == pytest.approx(5.0)


def test_a_sensor_that_hangs_holds_nobody_up() -> None:
    free = threading.Event()

    def hang() -> Sample:
        assert free.wait(30)
        return Sample(watts=5.0)

    meter = EnergyMeter("hung", Sampler(Watched(hang)))
    try:
        with meter.window() as outer, meter.window() as inner:
            pass
        assert outer.reading.joules is inner.reading.joules is None
    finally:
        free.set()
    assert settled(lambda: outer.reading.watts == pytest.approx(5.0))


def test_a_reading_is_filled_in_by_the_sample_after_the_window() -> None:
    probe = Watched(period_s=30.0)
    meter = EnergyMeter("watched", Sampler(probe))
    with meter.window() as window:
        probe.wait_for(1)
        time.sleep(0.2)
    at_once = window.reading
    probe.wait_for(2)
    assert settled(lambda: window.reading.quality == "measured")
    assert at_once.joules == pytest.approx(window.reading.joules)
    assert window.reading.duration_s == at_once.duration_s >= 0.2


def test_one_thread_serves_windows_in_a_row_and_ends_after_them() -> None:
    probe = Watched()
    meter = EnergyMeter("watched", Sampler(probe))
    for _ in range(3):
        with meter.window():
            probe.wait_for(len(probe.readers) + 1)
        assert len(threads()) == 1
    assert settled(lambda: not threads())
    read = len(probe.readers)
    time.sleep(5 * probe.period_s)
    assert len(probe.readers) == read  # an idle node is left alone
    with meter.window() as window:
        probe.wait_for(read + 2)
    assert window.reading.watts == pytest.approx(5.0)


def test_a_changing_rail_is_followed(tmp_path: Path) -> None:
    chip = hwmon_chip(tmp_path, 1, {"VDD_IN": (5000, 1000)})
    rail = open_ina3221(tmp_path)
    probe = Watched(rail.sample, period_s=0.001)
    meter = EnergyMeter("ina3221", Sampler(probe))
    done = threading.Event()

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
            probe.wait_for(50)
    finally:
        done.set()
        writer.join()
    for window in (inner, outer):
        watts = window.reading.watts
        assert watts is not None and 5.0 < watts < 15.0


def test_windows_of_many_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    hwmon_chip(tmp_path, 1, {"VDD_IN": (5000, 1000)})
    probe = replace(open_ina3221(tmp_path), period_s=0.001)
    meter = EnergyMeter("ina3221", Sampler(probe))
    with meter.window() as whole:
        assert settled(lambda: whole_began(meter))
        watts: list[float | None] = []

        def work() -> None:
            for _ in range(20):
                with meter.window() as window:
                    threading.Event().wait(0.001)
                watts.append(window.reading.watts)

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert watts == [pytest.approx(5.0)] * 80
    assert whole.reading.watts == pytest.approx(5.0)


def whole_began(meter: EnergyMeter) -> bool:
    """Whether the sensor was read, so that even the shortest window has a power to go by."""
    with meter.window() as window:
        time.sleep(0.001)
    return window.reading.joules is not None
