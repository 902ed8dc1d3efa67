"""The drawn house is the code's, and a house that is out of order is told from one that is not."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts.draw_imports import GAP, PICTURE, Spot, draw, settle
from scripts.import_graph import faults, read_house, reduced

ROOT = Path(__file__).parents[2]
SETTINGS = """
[[tool.importlinter.contracts]]
layers = [
    "cli",
    "(server) | api",
    "node | profiler",
    "plan",
]
[[tool.importlinter.contracts]]
source_modules = [
    "prism.plan",
]
"""
FILES = {
    "__init__": "from prism import plan",
    "cli/__init__": '"""Commands: arguments in,\ntables out. No `logic`.\n\nMore."""\n',
    "cli/run": "def run():\n    from prism.api import Cluster\n",
    "api/__init__": "from prism.api.cluster import Cluster",
    "api/cluster": "import prism.node.program\nfrom prism import plan\n",
    "node/__init__": "",
    "node/program": "from prism.plan import Plan",
    "profiler/__init__": "",
    "plan": "",
}


@pytest.fixture
def build(tmp_path):
    """Return a function that writes a small house, some files changed, and reads it."""

    def write(**changes):
        (tmp_path / "pyproject.toml").write_text(SETTINGS)
        for name, code in {**FILES, **changes}.items():
            path = tmp_path / "src" / "prism" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
        return read_house(tmp_path)

    return write


def test_the_house_is_in_order_and_the_picture_is_of_it():
    done = subprocess.run(
        [sys.executable, "-m", "scripts.draw_imports", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_picture_shows_every_room_once():
    drawn = ElementTree.parse(PICTURE).getroot()
    names = [text.text for text in drawn.iter() if text.get("class") == "name"]
    rooms = set(read_house(ROOT).about) - {"__main__"}
    assert sorted(names) == sorted(rooms)


def test_rooms_arrows_and_sentences_are_read_from_the_code(build):
    house = build()
    assert house.layers == [["cli"], ["api"], ["node", "profiler"], ["plan"]]
    assert house.arrows == {("cli", "api"), ("api", "node"), ("api", "plan"), ("node", "plan")}
    assert house.about["cli"] == "Commands: arguments in, tables out"
    assert house.plain == {"plan"}
    assert faults(house) == []
    drawn = ElementTree.fromstring(draw(house))
    assert sum(path.get("class") == "arrow" for path in drawn.iter()) == 3  # api -> plan follows


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"plan": "def late():\n    import prism.node"},
            "plan imports node, which stands above it",
        ),
        (
            {"profiler/__init__": "import prism.node.program"},
            "profiler imports node, which stands beside it",
        ),
        ({"extra": ""}, "extra stands in no layer of pyproject.toml"),
        (
            {"node/program": "import prism.node.inbox", "node/inbox": "import prism.node.program"},
            "files import each other in a circle: ",
        ),
    ],
)
def test_what_is_out_of_order_is_named(build, changes, fault):
    (found,) = [each for each in faults(build(**changes)) if each.startswith(fault)]
    if "circle" in fault:
        assert {"prism.node.program", "prism.node.inbox"} < set(found.split())


def test_imports_for_type_checkers_do_not_count(build):
    code = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import prism.cli.run\n"
        "else:\n    import prism.plan\n"
    )
    house = build(**{"node/program": code})
    assert ("node", "plan") in house.arrows and ("node", "cli") not in house.arrows
    assert faults(house) == []


@st.composite
def downward(draw_):
    pairs = [(str(a), str(b)) for a in range(7) for b in range(a + 1, 7)]
    return draw_(st.sets(st.sampled_from(pairs)))


def reachable(arrows):
    """Return all pairs joined by a way, found by repeating joins until nothing is new."""
    ways = set(arrows)
    while more := {(a, d) for a, b in ways for c, d in arrows if b == c} - ways:
        ways |= more
    return ways


@given(downward())
def test_leaving_out_arrows_keeps_every_way_and_none_can_be_spared(arrows):
    kept = set(reduced(arrows))
    assert kept <= arrows and reachable(kept) == reachable(arrows)
    for arrow in kept:
        assert arrow not in reachable(kept - {arrow})


SPOTS = st.lists(st.tuples(st.floats(-500, 500), st.sampled_from([0.0, 100.0, 330.0])), min_size=1)


@given(SPOTS)
def test_a_row_keeps_its_order_and_nothing_overlaps(wanted):
    row = [Spot(width=width) for _, width in wanted]
    settle(row, [x for x, _ in wanted])
    for a, b in zip(row, row[1:], strict=False):
        assert b.x - a.x >= (a.width + b.width) / 2 + GAP - 1e-6
    # Nobody pushes on one another in vain: the row as a whole stands where it wants to.
    assert sum(spot.x for spot in row) == pytest.approx(sum(x for x, _ in wanted), abs=1e-6)
