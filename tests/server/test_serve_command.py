"""`prism serve` from its arguments to its end."""

import json
import signal
import socket

import psutil
import pytest
from tests.cli.commands import call
from tests.families import BY_NAME
from tests.server.process import ServerProcess, spawn_server

KEY = "a key that nobody can guess"
SLOW_MODEL = "slow=random:vit-tiny"
PENDING = 8


@pytest.fixture
def start(tmp_path, model_directories):
    """Start a server with one node and a tiny model, and more arguments."""
    started = []

    def make(*arguments, model=None):
        log = tmp_path / f"log{len(started)}"
        options = ["--local-nodes", 1, "--threads", 1, *arguments]
        started.append(ServerProcess(log, model or model_directories["vit"], *options))
        return started[-1]

    yield make
    for each in started:
        each.__exit__()


def pixels(edge=16):
    shape = [1, 3, edge, edge]
    data = [0] * (3 * edge * edge)
    return {"inputs": [{"name": "pixel_values", "datatype": "FP32", "shape": shape, "data": data}]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits", "--port", "99999"], "--port must lie in 0..65535"),
        (["digits", "--drain", "soon"], "--drain 'soon' is no time"),
        (["digits", "--local-nodes", "0"], "at least 1, not 0"),
        (["digits", "--max-batch", "0"], "--max-batch must be at least 1"),
        (["digits", "--dtype", "float8"], "unknown dtype"),
        (["digits", "--objective", "speed"], "use latency, energy or edp"),
        (["digits", "--max-accuracy-drop", "2"], "must lie in 0..1"),
        (["digits", "--map", "missing.json"], "missing.json"),
        (["digits", "--api-key-file", "missing"], "cannot be read"),
        (["digits", "other/digits"], "would both be named digits"),
        (["a name/with space"], "cannot stand in a URL"),
        (["digits", "--host", "192.0.2.1"], "cannot be taken"),
        (["digits", "--cluster", "missing.yaml"], "missing.yaml"),
        (["digits", "--local-nodes", "1", "--link", "fast"], "fast"),
    ],
)
def test_a_wrong_argument_is_refused_before_a_node_starts(monkeypatch, capsys, arguments, said):
    monkeypatch.setattr("prism.api.open.local_cluster", None)
    result = call(monkeypatch, capsys, "serve", *arguments)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1


def test_a_port_that_is_taken_is_refused(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = call(monkeypatch, capsys, "serve", "digits", "--port", port)
    assert result.code == 2
    assert f"port {port} of 127.0.0.1 cannot be taken" in result.err


def test_a_key_is_asked_for_except_by_health(start, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"# ours\n\n{KEY}\nanother one, just as long\n")
    server = start("--api-key-file", keys)
    right, wrong = {"Authorization": f"Bearer {KEY}"}, {"Authorization": f"Bearer {KEY}!"}
    assert server.get("/v2/health/ready")[0] == 200
    for path in ("/v2", "/v2/models/vit", "/metrics", "/nothing"):
        for headers in ({}, wrong, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}):
            status, said = server.get(path, **headers)
            assert status == 401
            assert "Authorization: Bearer KEY" in said["error"]
    status, said = server.get("/v1/models")
    assert status == 401
    assert said["error"]["type"] == "authentication_error"
    assert server.get("/v2", **right)[0] == 200
    assert server.post("/v2/models/vit/infer", pixels(), **right)[0] == 200
    assert KEY not in server.said


def test_a_name_can_be_given_to_a_model(start, model_directories):
    server = start(model=f"mine={model_directories['vit']}")
    assert server.get("/v2/models/mine")[1]["name"] == "mine"
    assert server.get("/v2/models/vit")[0] == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_accepted_request_is_answered_before_the_end(start, number):
    server = start(model=SLOW_MODEL)
    family = server.family()
    body = json.dumps(pixels(224)).encode()
    connections = [server.connect() for _ in range(PENDING)]
    for each in connections:
        each.request("POST", "/v2/models/slow/infer", body)
    half = socket.create_connection(("127.0.0.1", server.port))
    half.sendall(b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
    server.tell(number)
    answers = [each.getresponse() for each in connections]
    assert [each.status for each in answers] == [200] * PENDING
    assert all(json.loads(each.read())["outputs"] for each in answers)
    assert half.recv(100).startswith(b"HTTP/1.1 503 ")
    assert server.wait() == 0
    assert not psutil.wait_procs(family, timeout=10)[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    for each in connections:
        each.close()
    half.close()


def test_what_takes_longer_than_the_drain_time_is_told_so(start):
    server = start("--drain", "1s", model="slow=random:vit-base")
    family = server.family()
    big = pixels(224)
    big["inputs"][0] |= {
        "shape": [30, 3, 224, 224],
        "parameters": {"binary_data_size": 30 * 602112},
    }
    del big["inputs"][0]["data"]
    header = json.dumps(big).encode()
    connection = server.connect()
    connection.request(
        "POST",
        "/v2/models/slow/infer",
        header + bytes(30 * 602112),
        {"Inference-Header-Content-Length": str(len(header))},
    )
    server.tell()
    answer = connection.getresponse()
    assert answer.status == 503
    assert answer.headers["Retry-After"]
    assert "closed before" in json.loads(answer.read())["error"]
    connection.close()
    assert server.wait() == 0
    assert not psutil.wait_procs(family, timeout=10)[1]


def test_a_signal_while_it_loads_leaves_no_process(tmp_path, model_directories):
    process = spawn_server(tmp_path / "log", model_directories["vit"])
    own, started = psutil.Process(process.pid), []
    while not started:  # until a node process is there
        started = own.children(recursive=True)
    process.terminate()
    assert process.communicate() == ("", None)
    assert process.returncode == 130
    assert not psutil.wait_procs(started, timeout=10)[1]


def test_a_lost_helper_changes_no_readiness(model_directories, tmp_path):
    options = ["--local-nodes", 2, "--threads", 1]
    with ServerProcess(tmp_path / "log", model_directories["vit"], *options) as server:
        helper = next(each for each in server.family() if "node1" in each.cmdline())
        helper.kill()
        inputs = BY_NAME["ViTForImageClassification"].inputs(batch=1)["pixel_values"]
        document = pixels()
        document["inputs"][0]["data"] = inputs.flatten().tolist()
        document["parameters"] = {"plan": "seq:2:full"}
        status, answer = server.post("/v2/models/vit/infer", document)
        assert status == 200
        assert answer["parameters"]["outcome"] == "recovered"
        assert server.get("/v2/health/ready") == (200, {"ready": True})
