"""The configuration text, and detection on machines made of files."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.energy.boards import HandClock, hwmon_chip, rapl_zone
from tests.energy.test_sensors import Gpu

from prism.energy import Host, detect, meter
from prism.energy.choose import SENSORS
from prism.errors import ConfigError


@pytest.fixture
def bare(tmp_path: Path) -> Host:
    """A machine without any sensor."""
    (tmp_path / "boot_id").write_text("boot-1\n")
    return Host(
        sysfs=tmp_path,
        boot_id=tmp_path / "boot_id",
        vcgencmd=("no-such-vcgencmd",),
        environ={},
        nvml=Gpu(),
        clock=HandClock(),
    )


def test_a_machine_without_sensors_gets_none_and_all_reasons(bare: Host) -> None:
    found = detect(node="box", host=bare)
    assert found.meter.name == "none"
    assert tuple(item.name for item in found.skipped) == SENSORS
    with found.meter.window() as window:
        pass
    assert window.reading.joules is None
    assert all(name in str(window.reading.reason) for name in SENSORS)


def test_the_first_sensor_that_works_is_taken_and_the_others_explained(bare: Host) -> None:
    rapl_zone(bare.sysfs, "0", "package-0", 5)
    found = detect(host=bare)
    assert (found.meter.name, found.meter.scope) == ("rapl", "package-0")
    reasons = {item.name: item.reason for item in found.skipped}
    assert list(reasons) == ["ina3221", "pi5", "nvml"]
    assert "no INA3221" in reasons["ina3221"]
    assert "no-such-vcgencmd" in reasons["pi5"]
    hwmon_chip(bare.sysfs, 0, {"VDD_IN": (5000, 1000)})
    assert meter("auto", host=bare).name == "ina3221"


def test_a_gpu_says_nothing_about_a_model_on_the_cpu(bare: Host) -> None:
    host = replace(bare, nvml=Gpu(power_mw=1000))
    rapl_zone(bare.sysfs, "0", "package-0", 5)
    assert detect(host=host, device="cuda").meter.name == "nvml"
    found = detect(host=host, device="cpu")
    assert found.meter.name == "rapl"
    assert "runs on cpu" in found.skipped[-1].reason


@pytest.mark.parametrize(
    ("text", "device", "visible", "gpu"),
    [
        ("nvml", None, None, "GPU 0"),
        ("nvml", "cuda:1", None, "GPU 1"),
        ("nvml", "cuda", "1,0", "GPU 1"),
        ("nvml", "cuda:1", "1,0", "GPU 0"),
        ("nvml", "cuda", "GPU-ab12", "GPU GPU-ab12"),
        ("nvml:1", "cuda:0", "0", "GPU 1"),
    ],
)
def test_the_gpu_that_the_process_uses_is_read(
    bare: Host, text: str, device: str | None, visible: str | None, gpu: str
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    host = replace(bare, nvml=Gpu(power_mw=1000), environ=environ)
    assert meter(text, device=device, host=host).scope.startswith(f"{gpu} (")


def test_an_explicit_sensor_that_does_not_work_is_an_error(bare: Host) -> None:
    for name in SENSORS:
        with pytest.raises(ConfigError, match=f"'{name}' does not work here: .*or use auto"):
            meter(name, host=bare)


def test_texts_for_machines_without_sensors(bare: Host, tmp_path: Path) -> None:
    clock = bare.clock
    assert isinstance(clock, HandClock)
    with meter("model:idle=2.5,busy=7", node="a", host=bare).window() as window:
        clock.advance(2)
    assert window.reading.joules == pytest.approx(14)
    file = tmp_path / "a:b.csv"
    file.write_text("time_s,watts\n0,3\n9,3\n")
    with meter(f"replay:{file}", host=bare).window() as window:
        clock.advance(2)
    assert window.reading.joules == pytest.approx(6)
    assert str(file) in window.reading.scope
    with meter("none", host=bare).window() as window:
        clock.advance(2)
    assert window.reading.reason == "energy metering is switched off"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "solar",
        "auto:fast",
        "none:x",
        "rapl:0",
        "pi5:x",
        "replay",
        "replay:",
        "model",
        "model:",
        "model:idle=1",
        "model:idle=1,busy=two",
        "model:idle=1,idle=1",
        "model:idle=1,busy=2,extra=3",
        "model:idle=3,busy=2",
    ],
)
def test_bad_texts_are_refused(text: str, bare: Host) -> None:
    with pytest.raises(ConfigError):
        meter(text, host=bare)


@given(st.floats(0, 1000), st.floats(0.001, 1000))
def test_every_model_text_says_its_watts(idle: float, more: float) -> None:
    clock = HandClock(0.0)
    built = meter(f"model: idle={idle!r}, busy={idle + more!r}", host=Host(clock=clock))
    with built.window() as window:
        clock.advance(1)
        window.busy(fraction=0.5)
    assert window.reading.joules == pytest.approx(idle + more / 2)


def test_node_processes_of_one_machine_share_their_sensor(bare: Host, tmp_path: Path) -> None:
    rapl_zone(bare.sysfs, "0", "package-0", 5)
    other = replace(bare, boot_id=tmp_path / "other")
    other.boot_id.write_text("boot-2\n")
    readings = []
    for node, host in (("a", bare), ("b", bare), ("c", other)):
        with meter("rapl", node=node, host=host).window() as window:
            pass
        readings.append(window.reading)
    assert [reading.scope for reading in readings] == [f"package-0 of {node}" for node in "abc"]
    shared, again, own = (reading.domain for reading in readings)
    assert shared == again != own


def test_energy_does_not_import_torch() -> None:
    code = "import sys, prism.energy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
