"""The probes, against files and commands that look like the boards'."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.energy.boards import HandClock, HandSampler, hwmon_chip, rapl_zone, write_files

from prism.energy import EnergyMeter
from prism.energy.ina3221 import open_ina3221
from prism.energy.nvml import open_nvml
from prism.energy.pi5 import open_pi5, rail_watts
from prism.energy.rapl import Package, open_rapl
from prism.errors import ClusterError, ConfigError

ORIN_NANO = {"VDD_IN": (5000, 1200), "VDD_CPU_GPU_CV": (5000, 400), "VDD_SOC": (5000, 300)}
PMIC = """\
 3V7_WL_SW_A current(0)=0.10000000A
   1V8_SYS_A current(2)=0.50000000A
  VDD_CORE_A current(7)=2.00000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   1V8_SYS_V volt(10)=1.80000000V
  VDD_CORE_V volt(15)=0.80000000V
     EXT5V_V volt(24)=5.15000000V
      BATT_V volt(25)=0.00000000V
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, which tmp_path is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def unprivileged(open_folder: Path) -> Iterator[None]:
    """Give up root inside the test, where the test runs as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_jetson_reads_its_input_rail(tmp_path: Path) -> None:
    hwmon_chip(tmp_path, 0, {"other": (1000, 1000)}, name="tmp451")
    hwmon_chip(tmp_path, 1, ORIN_NANO)
    probe = open_ina3221(tmp_path)
    assert probe.scope == "VDD_IN"
    assert probe.sample().watts == pytest.approx(6.0)


def test_a_jetson_without_an_input_rail_sums_what_does_not_nest(tmp_path: Path) -> None:
    hwmon_chip(tmp_path, 1, {"VDD_GPU_SOC": (19000, 400), "VDD_CPU_CV": (19000, 100)})
    hwmon_chip(tmp_path, 2, {"VIN_SYS_5V0": (5000, 600), "NC": (1, 1), "VDDQ_VDD2_1V8AO": (5, 9)})
    probe = open_ina3221(tmp_path)
    assert probe.scope == "VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0"
    assert probe.sample().watts == pytest.approx(7.6 + 1.9 + 3.0)


def test_the_driver_folder_is_the_same_chip_not_a_second_one(tmp_path: Path) -> None:
    chip = hwmon_chip(tmp_path, 3, {"GPU": (5000, 200)})
    driver = tmp_path / "bus/i2c/drivers/ina3221/1-0040/hwmon"
    driver.mkdir(parents=True)
    (driver / "hwmon3").symlink_to(chip)
    assert open_ina3221(tmp_path).sample().watts == pytest.approx(1.0)
    shutil.move(chip, driver / "moved")
    (driver / "hwmon3").unlink()
    shutil.move(driver / "moved", driver / "hwmon3")
    assert open_ina3221(tmp_path).sample().watts == pytest.approx(1.0)


def test_power_files_come_before_voltage_times_current(tmp_path: Path) -> None:
    chip = hwmon_chip(tmp_path, 1, ORIN_NANO)
    write_files(chip, {"power1_input": 7_500_000})
    assert open_ina3221(tmp_path).sample().watts == pytest.approx(7.5)


def test_switched_off_channels_are_left_out(tmp_path: Path) -> None:
    chip = hwmon_chip(tmp_path, 1, {"CPU": (5000, 200), "GPU": (5000, 400)})
    write_files(chip, {"in2_enable": 0})
    assert open_ina3221(tmp_path).scope == "CPU"


def test_the_older_iio_layout_is_read_in_milliwatts(tmp_path: Path) -> None:
    device = tmp_path / "bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    write_files(device, {"rail_name_0": "POM_5V_IN", "in_power0_input": 3200})
    write_files(device, {"rail_name_1": "POM_5V_GPU", "in_power1_input": 900})
    probe = open_ina3221(tmp_path)
    assert (probe.scope, probe.sample().watts) == ("POM_5V_IN", pytest.approx(3.2))


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"curr1_input": 0}, "read 0.0 W"), ({"curr1_input": "?"}, "cannot be read")],
)
def test_a_jetson_rail_must_read_power(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    write_files(hwmon_chip(tmp_path, 1, ORIN_NANO), change)
    with pytest.raises(ConfigError, match=reason):
        open_ina3221(tmp_path)


def test_a_rail_that_vanishes_makes_the_window_unknown(tmp_path: Path) -> None:
    chip = hwmon_chip(tmp_path, 1, ORIN_NANO)
    clock = HandClock()
    sampler = HandSampler(open_ina3221(tmp_path), clock)
    with EnergyMeter("ina3221", sampler).window() as window:
        clock.advance(1)
        (chip / "curr1_input").unlink()
    assert window.reading.joules is None and "curr1_input" in str(window.reading.reason)


def test_rapl_sums_packages_and_nothing_else(tmp_path: Path) -> None:
    second = rapl_zone(tmp_path, "1", "package-1", 500)
    first = rapl_zone(tmp_path, "0", "package-0", 1_000_000)
    core = rapl_zone(tmp_path, "0:0", "core", 7)
    psys = rapl_zone(tmp_path, "2", "psys", 7)
    clock = HandClock()
    meter = EnergyMeter("rapl", HandSampler(open_rapl(tmp_path), clock), node="pc")
    with meter.window() as window:
        clock.advance(2)
        for file, energy_uj in ((first, 31_000_000), (second, 10_000_500), (core, 99), (psys, 99)):
            file.write_text(str(energy_uj))
    assert window.reading.joules == pytest.approx(40)
    assert (window.reading.scope, window.reading.quality) == (
        "package-0,package-1 of pc",
        "measured",
    )


def test_a_rapl_counter_wraps_around_inside_a_window(tmp_path: Path) -> None:
    counter = rapl_zone(tmp_path, "0", "package-0", 990_000, range_uj=1_000_000)
    clock = HandClock()
    sampler = HandSampler(open_rapl(tmp_path), clock)
    with EnergyMeter("rapl", sampler).window() as window:
        for energy_uj in (800_000, 600_000, 400_000):
            clock.advance(10)
            counter.write_text(str(energy_uj))
            sampler.tick()
    assert window.reading.joules == pytest.approx(0.81 + 0.8 + 0.8)


@given(st.integers(1, 10**6), st.lists(st.integers(0, 999_999), max_size=20))
def test_an_unwrapped_counter_gives_back_every_step(start_uj: int, steps: list[int]) -> None:
    with tempfile.NamedTemporaryFile("w") as file:
        package = Package("package-0", Path(file.name), 1_000_000, start_uj % 1_000_000)
        total_uj = start_uj
        for step in steps:
            total_uj += step
            Path(file.name).write_text(str(total_uj % 1_000_000))
            package.advance()
    assert package.total_uj == sum(steps)


def test_rapl_that_root_keeps_for_itself_is_named_with_the_way_out(
    open_folder: Path, request: pytest.FixtureRequest
) -> None:
    rapl_zone(open_folder, "0", "package-0", 1).chmod(stat.S_IRUSR if os.geteuid() == 0 else 0)
    request.getfixturevalue("unprivileged")
    with pytest.raises(ConfigError, match=r"energy_uj may not be read.*chmod a\+r"):
        open_rapl(open_folder)


def test_rapl_in_a_virtual_machine_is_refused(tmp_path: Path) -> None:
    rapl_zone(tmp_path, "0", "package-0", 0)
    with pytest.raises(ConfigError, match="stands at 0, as it does in virtual machines$"):
        open_rapl(tmp_path)


def test_the_pmic_sums_rails_that_have_both_values() -> None:
    assert rail_watts(PMIC) == {
        "3V7_WL_SW": pytest.approx(0.37),
        "1V8_SYS": pytest.approx(0.9),
        "VDD_CORE": pytest.approx(1.6),
    }
    assert rail_watts("VDD_CORE_V=0.8750V\nVDD_CORE_A=2.0A\n") == {"VDD_CORE": 1.75}


def script(folder: Path, body: str) -> tuple[str, ...]:
    file = folder / "vcgencmd.py"
    file.write_text(f"import sys\n{body}\n")
    return (sys.executable, "-S", str(file), "pmic_read_adc")


def test_a_raspberry_pi_5_is_read_through_its_command(tmp_path: Path) -> None:
    probe = open_pi5(script(tmp_path, f"print({PMIC!r})"))
    assert probe.sample().watts == pytest.approx(2.87)
    assert "without converter losses, USB" in probe.scope


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("print('error=1 error_msg=\"Command not registered\"')", "names no rails but says 'error"),
        ('sys.exit("Can\'t open device file: /dev/vcio")', "failed: Can't open device file"),
        ("", "says 'nothing'"),
        ("print('A_A current(0)=0.0A A_V volt(1)=1.0V')", "read 0 W"),
    ],
)
def test_other_boards_are_no_raspberry_pi_5(tmp_path: Path, body: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        open_pi5(script(tmp_path, body))


def test_a_missing_command_is_named() -> None:
    with pytest.raises(ConfigError, match="no-such-vcgencmd is not installed"):
        open_pi5(["no-such-vcgencmd"])


class Gpu:
    """The NVML functions that are used, for one GPU: no real one can exist here."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, energy_mj: int | None = None, power_mw: int | None = None) -> None:
        self.energy_mj = energy_mj
        self.power_mw = power_mw

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if index > 1:
            raise self.NVMLError("Invalid Argument")
        return f"handle {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return f"handle {uuid}"

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return "Test GPU"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        return self._tell(self.energy_mj)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return self._tell(self.power_mw)

    def _tell(self, value: int | None) -> int:
        if value is None:
            raise self.NVMLError("Not Supported")
        return value


def window_of(gpu: Any, seconds: float, used_mj: int = 0) -> Any:
    clock = HandClock()
    sampler = HandSampler(open_nvml("0", gpu), clock)
    with EnergyMeter("nvml", sampler).window() as window:
        clock.advance(seconds)
        if used_mj:
            gpu.energy_mj += used_mj
    return window.reading


def test_a_gpu_counts_its_own_energy() -> None:
    reading = window_of(Gpu(energy_mj=10**9, power_mw=1), 2.0, used_mj=90_000)
    assert (reading.joules, reading.quality) == (pytest.approx(90), "measured")
    assert reading.scope == "GPU 0 (Test GPU), board only"


def test_a_gpu_estimates_windows_below_its_counters_step() -> None:
    reading = window_of(Gpu(energy_mj=10**9, power_mw=50_000), 0.02)
    assert (reading.joules, reading.quality) == (pytest.approx(1.0), "estimated")


def test_an_older_gpu_is_integrated() -> None:
    reading = window_of(Gpu(power_mw=50_000), 0.02)
    assert (reading.joules, reading.quality) == (pytest.approx(1.0), "measured")


def test_a_gpu_that_is_lost_makes_the_window_unknown() -> None:
    gpu = Gpu(power_mw=50_000)
    probe = open_nvml("0", gpu)
    gpu.power_mw = None
    with pytest.raises(ClusterError, match="NVML: Not Supported"):
        probe.sample()


def test_gpus_that_cannot_be_metered_say_why() -> None:
    with pytest.raises(ConfigError, match="cannot open GPU 7: Invalid Argument"):
        open_nvml("7", Gpu(power_mw=1))
    with pytest.raises(ConfigError, match="neither energy nor power of GPU GPU-ab"):
        open_nvml("GPU-ab", Gpu())
