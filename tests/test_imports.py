import json
import re
import subprocess
import sys
from pathlib import Path

import prism

ROOT = Path(__file__).parents[1]
# What decides must start fast and run without the heavy libraries.
PLAIN = [
    "prism",
    "prism.plan",
    "prism.record",
    "prism.errors",
    "prism.partition.spans",
    "prism.perfmap",
    "prism.emulation.link",
    "prism.energy",
    "prism.planner",
    "prism.control.membership",
    "prism.cli",
]
PROBE = """
import importlib, json, sys
heavy = {}
for name in sys.argv[1:]:
    importlib.import_module(name)
    heavy[name] = sorted({"torch", "transformers"} & set(sys.modules))
print(json.dumps(heavy))
"""


def test_deciding_modules_import_neither_torch_nor_transformers():
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, *PLAIN], capture_output=True, text=True, check=True
    )
    assert json.loads(probe.stdout) == {name: [] for name in PLAIN}


def test_the_version_is_the_one_in_the_metadata():
    written = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert written and prism.__version__ == written[1]
