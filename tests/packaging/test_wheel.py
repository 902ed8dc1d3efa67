"""The wheel alone is the whole program: what is in it, and that it runs without the checkout.

Built without a download (`--no-isolation`) and unpacked into a folder of its own; the interpreter
that runs it sees that folder and the dependencies, not the sources.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest

from prism.version import VERSION

ROOT = Path(__file__).parents[2]
SOURCES = ("src", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the sources: a build writes beside them."""
    tree, made = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("made")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, tree / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
            )
        else:
            shutil.copy(source, tree / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", made, tree],
        capture_output=True,
        text=True,
        cwd=made,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = made.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    with ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def metadata(installed):
    (path,) = installed.glob("*.dist-info/METADATA")
    return HeaderParser().parsestr(path.read_text("utf-8"))


def run_installed(installed, code, *args):
    """Run code that sees the unpacked wheel and the dependencies, outside the checkout."""
    # -S: the checkout is installed in editable form; without `site` its hook is not read.
    dependencies = sysconfig.get_path("purelib")
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *args],
        capture_output=True,
        text=True,
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), dependencies])},
    )


def test_the_distribution_is_prism_edge(wheel, metadata):
    assert (metadata["Name"], metadata["Version"]) == ("prism-edge", VERSION)
    assert wheel.name == f"prism_edge-{VERSION}-py3-none-any.whl"


def test_what_only_tests_need_is_no_dependency(metadata):
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    names = {line.split(">")[0] for line in needed}
    assert {"torch", "transformers", "pyzmq"} <= names
    assert not {"psutil", "scikit-learn", "pytest", "matplotlib"} & names


def test_everything_that_is_in_the_package_is_in_the_wheel(installed):
    package = ROOT / "src" / "prism"
    for source in package.rglob("*"):
        if source.is_file() and "__pycache__" not in source.parts:
            copy = installed / "prism" / source.relative_to(package)
            assert copy.read_bytes() == source.read_bytes()
    assert {path.name for path in installed.iterdir()} == {
        "prism",
        f"prism_edge-{VERSION}.dist-info",
    }
    assert (installed / "prism" / "py.typed").is_file()


def test_the_command_is_prism(installed):
    (path,) = installed.glob("*.dist-info/entry_points.txt")
    assert path.read_text().split() == ["[console_scripts]", "prism", "=", "prism.cli:main"]


def test_the_wheel_runs_without_the_checkout(installed):
    done = run_installed(installed, "import prism; print(prism.__file__, prism.__version__)")
    assert done.stdout.split() == [str(installed / "prism" / "__init__.py"), VERSION], done.stderr
    done = run_installed(installed, "from prism.cli import main; main()", "--help")
    assert done.returncode == 0 and "demo" in done.stdout, done.stderr


def test_the_demo_of_the_wheel_runs_without_scikit_learn(installed):
    code = "import sys; sys.modules['sklearn'] = None; from prism.cli import main; main()"
    options = ("demo", "--images", "10", "--plan", "batch:2", "--json")
    done = run_installed(installed, code, *options)
    assert done.returncode == 0, done.stderr
    assert [row["plan"] for row in json.loads(done.stdout)["plans"]] == ["local", "batch:2"]
