"""The window: entered once, read after, and told how busy it was."""

import pytest
from tests.energy.boards import HandClock

from prism.energy import EnergyMeter
from prism.energy.power_model import NoReader, PowerModel
from prism.errors import ConfigError, InputError


def model(clock: HandClock) -> EnergyMeter:
    return EnergyMeter("model", PowerModel(2.0, 7.0, clock=clock), node="pi")


def test_a_model_charges_idle_and_busy_time() -> None:
    clock = HandClock()
    with model(clock).window() as window:
        clock.advance(10)
        window.busy(seconds=4)
    reading = window.reading
    assert reading.joules == pytest.approx(6 * 2.0 + 4 * 7.0)
    assert reading.watts == pytest.approx(4.0)
    assert (reading.quality, reading.duration_s, reading.node) == ("estimated", 10, "pi")
    assert reading.scope == "model idle=2 W, busy=7 W of pi"


@pytest.mark.parametrize(
    ("told", "watts"), [({}, 7.0), ({"fraction": 0.5}, 4.5), ({"seconds": 99.0}, 7.0)]
)
def test_busy_time_is_all_unless_told_and_never_more_than_the_window(
    told: dict[str, float], watts: float
) -> None:
    clock = HandClock()
    with model(clock).window() as window:
        if told:
            window.busy(**told)
        clock.advance(2)
    assert window.reading.joules == pytest.approx(2 * watts)


@pytest.mark.parametrize(
    "told",
    [{}, {"seconds": 1, "fraction": 1}, {"seconds": -1}, {"fraction": 1.1}, {"seconds": 1e400}],
)
def test_wrong_busy_times_are_refused(told: dict[str, float]) -> None:
    with model(HandClock()).window() as window, pytest.raises(InputError):
        window.busy(**told)


def test_windows_overlap_freely() -> None:
    clock = HandClock()
    meter = model(clock)
    outer, inner = meter.window(), meter.window()
    with outer:
        clock.advance(1)
        with inner:
            clock.advance(2)
            inner.busy(fraction=0)
        clock.advance(3)
    assert inner.reading.joules == pytest.approx(4)
    assert outer.reading.joules == pytest.approx(42)


def test_a_window_is_read_when_closed_and_used_once() -> None:
    window = model(HandClock()).window()
    with window, pytest.raises(InputError, match="still open"):
        _ = window.reading
    with pytest.raises(InputError, match="closed"):
        window.busy(fraction=1)
    with pytest.raises(InputError, match="entered once"), window:
        pass


def test_a_failing_body_still_gets_its_energy() -> None:
    clock = HandClock()
    window = model(clock).window()
    with pytest.raises(KeyError), window:
        clock.advance(1)
        raise KeyError
    assert window.reading.joules == pytest.approx(7)


def test_unknown_is_none_with_a_reason_never_zero() -> None:
    clock = HandClock()
    with EnergyMeter("none", NoReader("no sensor", clock=clock)).window() as nothing:
        clock.advance(1)
    assert nothing.reading.joules is nothing.reading.quality is nothing.reading.watts is None
    assert (nothing.reading.reason, nothing.reading.duration_s) == ("no sensor", 1)
    with model(clock).window() as empty:
        pass
    assert empty.reading.joules is None and "no duration" in str(empty.reading.reason)


@pytest.mark.parametrize(
    ("idle", "busy"), [(-1, 7), (8, 7), (0, 0), (1, float("inf")), (float("nan"), 7)]
)
def test_impossible_models_are_refused(idle: float, busy: float) -> None:
    with pytest.raises(ConfigError, match="0 <= idle <= busy"):
        PowerModel(idle, busy)
