"""Nodes started by hand and `prism.connect`, over real sockets on this machine."""

import signal
import socket
import subprocess
import sys

import pytest
from tests.machines import (
    alone,
    close,
    exists,
    pixels,
    secret_at,
    start_node,
    tiny_vit,
)

import prism
from prism.errors import ClusterError, ConfigError
from prism.launch.cluster_file import read_config


def prism_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "prism", *map(str, arguments)], capture_output=True, text=True
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def cluster_file(tmp_path):
    made = prism_command("keygen", tmp_path / "cluster.key")
    assert made.returncode == 0, made.stderr
    path = tmp_path / "cluster.yaml"
    path.write_text(f"nodes: [home, helper]\nhost: 127.0.0.1\nport: {free_port()}\ndevice: cpu\n")
    return path


def test_a_node_started_by_hand_serves_one_head_after_another(cluster_file):
    config = read_config(cluster_file)
    endpoint, log = f"tcp://127.0.0.1:{config.port}", cluster_file.with_name("helper.log")
    helper = start_node(log, "helper", endpoint, config.secret)
    stranger_key = secret_at(cluster_file.with_name("other.key"))
    stranger = start_node(log.with_name("stranger.log"), "stranger", endpoint, stranger_key)
    try:
        for seed in (1, 2):  # the second head's first model is another than the first's
            vit, x = tiny_vit(seed), pixels(2)
            with prism.connect(cluster_file, min_nodes=2) as cluster:
                assert cluster.nodes == ("home", "helper")
                home = cluster.pid("home")
                assert cluster.pid("helper") == helper.pid
                model = cluster.load(vit)
                for plan in ("seq:helper+home:full", "batch:home+helper", "local@helper", None):
                    output = model(plan=plan, pixel_values=x)
                    assert close(output.logits, alone(vit, pixel_values=x).logits)
                    assert model.last_record.outcome == "ok"
            assert not exists(home)
            assert helper.poll() is None
        assert stranger.poll() is None
        helper.send_signal(signal.SIGTERM)
        stranger.send_signal(signal.SIGINT)
        assert helper.wait(5.0) == 0 and stranger.wait(5.0) == 0
        words = log.read_text()
        assert words.count(f"joined {endpoint}") == 2 and "stopped by SIGTERM" in words
        assert "joined" not in log.with_name("stranger.log").read_text()
    finally:
        for process in (helper, stranger):
            process.kill()
            process.wait()


def test_a_node_that_does_not_come_is_named_and_nothing_is_left(cluster_file):
    with pytest.raises(ClusterError, match="helper did not join within 0.5 s"):
        prism.connect(cluster_file, timeout_s=0.5)
    config = read_config(cluster_file)
    socket.create_server(("127.0.0.1", config.port)).close()  # it is free again


def test_a_head_that_cannot_listen_names_its_address(cluster_file):
    config = read_config(cluster_file)
    with (
        socket.create_server(("127.0.0.1", config.port)),
        pytest.raises(ConfigError, match=f"127.0.0.1:{config.port}"),
    ):
        prism.connect(cluster_file)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "the file"),
        ("nodes: [a", "cannot be read"),
        ("- a", "the file"),
        ("nodes: []\nhost: x", "nodes"),
        ("nodes: [a]", "host"),
        ("nodes: [a, a]\nhost: x", "distinct"),
        ("nodes: [a, 'b c']\nhost: x", "b c"),
        ("nodes: [a]\nhost: x\nport: 0", "port"),
        ("nodes: [a]\nhost: x\nport: soon", "port"),
        ("nodes: [a]\nhost: x\ncolour: red", "colour"),
    ],
)
def test_a_wrong_cluster_file_is_named_with_the_field(tmp_path, text, named):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named) as caught:
        prism.connect(path)
    assert "cluster.yaml" in str(caught.value)


def test_missing_files_are_named(tmp_path):
    path = tmp_path / "cluster.yaml"
    with pytest.raises(ConfigError, match="no cluster file"):
        prism.connect(path)
    path.write_text("nodes: [a]\nhost: 127.0.0.1\n")
    with pytest.raises(ConfigError, match="prism keygen"):
        prism.connect(path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"--coordinator": "localhost:70"}, "tcp://HOST:PORT"),
        ({"--coordinator": "tcp://127.0.0.1:x"}, "tcp://HOST:PORT"),
        ({"--name": "a b"}, "a b"),
        ({"--secret": "missing.key"}, "prism keygen"),
        ({"--cores": "zero"}, "zero"),
        ({"--cores": "4096"}, "4096"),
    ],
)
def test_wrong_options_of_a_node_end_it_with_one_sentence(tmp_path, changes, named):
    values = {
        "--coordinator": "tcp://127.0.0.1:7070",
        "--name": "a",
        "--secret": str(secret_at(tmp_path / "cluster.key")),
        **changes,
    }
    ended = prism_command("node", *(word for pair in values.items() for word in pair))
    assert ended.returncode == 2
    assert named in ended.stderr and ended.stderr.count("\n") == 1
