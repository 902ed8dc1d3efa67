"""Where a command works: what the options make of it, and what is refused."""

from pathlib import Path

import pytest

from prism.cli.target import Target, read_target
from prism.errors import ConfigError


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("nodes: [nano, pi, desk]\nhost: 127.0.0.1\n")
    return path


@pytest.fixture
def opened(monkeypatch):
    """Note how clusters would be opened, and open none."""
    calls = []
    for name in ("local_cluster", "connect"):

        def note(*arguments, _name=name, **options):
            calls.append((_name, arguments, options))

        monkeypatch.setattr(f"prism.api.open.{name}", note)
    return calls


def test_without_options_it_is_as_many_local_nodes_as_are_needed(opened):
    target = read_target(None, needed=3)
    assert target == Target(("node0", "node1", "node2"), 3)
    assert str(target) == "3 nodes" and not target.emulated
    target.open()
    options = {"threads": None, "link": "none", "energy": "auto"}
    assert opened == [("local_cluster", (3,), options)]


def test_local_nodes_get_what_was_given_for_them(opened):
    target = read_target(None, needed=3, nodes=1, threads=2, link="0.1gbit, 3ms", energy="none")
    assert str(target) == "1 node" and target.emulated
    target.open()
    options = {"threads": 2, "link": "100mbit,3ms", "energy": "none"}
    assert opened == [("local_cluster", (1,), options)]


def test_a_cluster_file_names_the_nodes(config, opened):
    target = read_target(config, needed=2)
    assert target.names == ("nano", "pi", "desk") and not target.emulated
    assert str(target) == f"3 nodes of {config}"
    target.open()
    assert opened == [("connect", (config,), {"min_nodes": 2})]


@pytest.mark.parametrize(
    ("option", "value"),
    [("nodes", 2), ("threads", 1), ("link", "100mbit"), ("energy", "none")],
)
def test_what_is_for_local_nodes_is_refused_beside_real_ones(config, option, value):
    with pytest.raises(ConfigError, match=f"^--{option} {value} is for local nodes, and .* names"):
        read_target(config, needed=2, **{option: value})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"nodes": 0}, "--nodes must be at least 1, not 0"),
        ({"threads": 0}, "--threads must be at least 1, not 0"),
        ({"link": "5quux"}, "'5quux' in link"),
        ({"config": Path("absent.yaml")}, "no cluster file at absent.yaml"),
    ],
)
def test_wrong_values_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_target(**{"config": None, "needed": 2, **options})
