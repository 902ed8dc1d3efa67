"""A cluster that lives: links that fall, nodes that come late or come back with something else."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from tests.api.test_devices import free_port, prism_command
from tests.machines import alone, close, pixels, start_node, tiny_vit, until

import prism
from prism.launch.cluster_file import read_config


def restart(cluster, name):
    """Kill a node and start it again by hand, as it was started."""
    pid = cluster.pid(name)
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: name not in cluster.nodes)
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, **silent)
    assert until(lambda: name in cluster.nodes, timeout_s=60.0)
    return process


def test_a_link_that_falls_costs_at_most_two_requests():
    with prism.local_cluster(nodes=2, threads=1, link="100mbit,3ms") as cluster:
        model = cluster.load("digits")
        images = torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8)
        expected = model(pixel_values=images).logits
        for _ in range(4):
            model(plan="seq:2:full", pixel_values=images)
        assert model.last_record.outcome == "ok"
        cluster.set_link("100kbit,3ms")  # one exchange of this request needs half a minute
        tried, spared = 0, 0
        for _ in range(12):
            output = model(plan="seq:2:full", pixel_values=images)
            assert torch.allclose(output.logits, expected, atol=1e-4)
            record = model.last_record
            assert record.outcome == "recovered" and record.setback.startswith("seq:2:full: ")
            spared += "timed out; tried again in" in record.setback
            tried += "did not answer" in record.setback
        assert (tried, spared) in ((1, 11), (2, 10))
        # A plan that needs nothing of the link is not held back by it.
        model(plan="local@node0", pixel_values=images)
        assert model.last_record.outcome == "ok"


def test_a_node_that_comes_back_without_its_model_fails_no_request(tmp_path):
    vit, other = tiny_vit(), tiny_vit(seed=5)
    source, away, changed = tmp_path / "model", tmp_path / "away", tmp_path / "changed"
    vit.save_pretrained(source)
    other.save_pretrained(changed)
    x = pixels(3)
    expected = alone(vit, pixel_values=x).logits

    def ask(plan):
        assert close(model(plan=plan, pixel_values=x).logits, expected)
        return model.last_record

    with prism.local_cluster(nodes=2, threads=1) as cluster:
        model = cluster.load(source)
        assert ask("seq:2:full").outcome == "ok"
        restarted = []
        for put, reason in (
            (lambda: source.rename(away), "it cannot have the model"),
            (lambda: shutil.copytree(changed, source), "holds another model than node0"),
        ):
            put()
            restarted.append(restart(cluster, "node1"))
            assert until(lambda: reason in model.left_out.get("node1", ""))  # noqa: B023
            assert model.nodes == ("node0",)
            for plan in ("seq:2:full", "batch:2", "local@node1"):
                record = ask(plan)
                assert record.outcome == "recovered" and reason in record.setback
            assert ask(None).outcome == "ok"
        shutil.rmtree(source)
        away.rename(source)
        # Asked again by itself, without a request.
        assert until(lambda: model.nodes == ("node0", "node1"), timeout_s=30.0)
        assert model.left_out == {}
        assert ask("seq:2:full").outcome == "ok"
    for process in restarted:
        process.terminate()  # one that was told to end by the cluster has ended already
        process.wait(20.0)


@pytest.fixture
def cluster_file(tmp_path):
    assert prism_command("keygen", tmp_path / "cluster.key").returncode == 0
    path = tmp_path / "cluster.yaml"
    path.write_text(f"nodes: [home, helper]\nhost: 127.0.0.1\nport: {free_port()}\ndevice: cpu\n")
    return path


def test_a_cluster_opens_with_who_is_there_and_takes_in_who_comes(cluster_file):
    vit, x = tiny_vit(), pixels(2)
    expected = alone(vit, pixel_values=x).logits
    config = read_config(cluster_file)
    with prism.connect(cluster_file) as cluster:
        assert cluster.nodes == ("home",)
        model = cluster.load(vit)
        assert close(model(plan="seq:2:full", pixel_values=x).logits, expected)
        assert model.last_record.outcome == "recovered"
        assert "helper is not in the cluster" in model.last_record.setback
        endpoint, log = f"tcp://127.0.0.1:{config.port}", cluster_file.with_name("helper.log")
        helper = start_node(log, "helper", endpoint, config.secret)
        try:
            assert until(lambda: model.nodes == ("home", "helper"), timeout_s=60.0)
            for plan in ("seq:2:full", "batch:home+helper", "local@helper"):
                assert close(model(plan=plan, pixel_values=x).logits, expected)
                assert model.last_record.outcome == "ok"
        finally:
            helper.kill()
            helper.wait()


def test_more_nodes_than_come_can_be_demanded(cluster_file):
    with pytest.raises(prism.PrismError, match="helper did not join within 0.5 s"):
        prism.connect(cluster_file, timeout_s=0.5, min_nodes=2)
    with pytest.raises(prism.PrismError, match="min_nodes must lie in 1..2"):
        prism.connect(cluster_file, min_nodes=3)
    cluster_file.write_text(cluster_file.read_text() + "min_nodes: 9\n")
    with pytest.raises(prism.PrismError, match="min_nodes"):
        prism.connect(cluster_file)
