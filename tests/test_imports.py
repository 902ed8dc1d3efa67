import json
import subprocess
import sys

import prism
from prism.version import VERSION

# What decides must start fast and run without the heavy libraries.
PLAIN = [
    "prism",
    "prism.plan",
    "prism.record",
    "prism.output_form",
    "prism.errors",
    "prism.partition.spans",
    "prism.perfmap",
    "prism.emulation.link",
    "prism.energy",
    "prism.planner",
    "prism.control.membership",
    "prism.cli",
]
HEAVY = {"torch", "transformers"}
# What costs a start of the command half a second or more together.
SLOW = HEAVY | {"numpy", "pydantic", "zmq", "yaml", "PIL", "rich", "asyncio", "sklearn"}
PROBE = """
import importlib, json, sys
names, heavy = json.loads(sys.argv[1])
found = {}
for name in names:
    importlib.import_module(name)
    found[name] = sorted(set(heavy) & set(sys.modules))
print(json.dumps(found))
"""
HELP = """
import sys
from prism.cli import app
app(["--help"], standalone_mode=False)
print(*sys.modules)
"""


def said(code, *args):
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_deciding_modules_import_neither_torch_nor_transformers():
    found = json.loads(said(PROBE, json.dumps([PLAIN, sorted(HEAVY)])))
    assert found == {name: [] for name in PLAIN}


def test_help_imports_nothing_slow():
    loaded = set(said(HELP).split())
    assert "typer" in loaded
    assert loaded & SLOW == set()


def test_the_version_has_one_place():
    assert prism.__version__ == VERSION
    done = subprocess.run(
        [sys.executable, "-m", "prism", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{VERSION}\n"
