import http.client
import json
import re
import socket
import zlib
from contextlib import ExitStack

import numpy as np
import pytest
import torch
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.families import BY_NAME
from tests.server.conftest import FAMILIES
from tritonclient.utils import InferenceServerException

SLOW_CLIENTS = 200
LENGTH = "Inference-Header-Content-Length"
PIXELS = {"name": "pixel_values", "datatype": "FP32", "shape": [1, 3, 16, 16]}


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.address) as client:
        yield client


def given_inputs(inputs, *, binary):
    made = []
    for name, tensor in inputs.items():
        kind = "INT64" if tensor.dtype == torch.int64 else "FP32"
        made.append(triton.InferInput(name, list(tensor.shape), kind))
        made[-1].set_data_from_numpy(tensor.numpy(), binary_data=binary)
    return made


def asked(client, name, inputs, *, binary=True, outputs=None, **parameters):
    return client.infer(
        name, given_inputs(inputs, binary=binary), outputs=outputs, parameters=parameters
    )


def logits_of(plain_models, name, inputs):
    with torch.inference_mode():
        return plain_models[name](**inputs).logits.numpy()


def error_of(server, document, *data, headers=None):
    """Post JSON, and binary data behind it; return status and sentence."""
    header = document if isinstance(document, bytes) else json.dumps(document).encode()
    if headers is None:
        headers = {LENGTH: str(len(header))} if data else {}
    status, _, body = server.ask(
        "POST", "/v2/models/vit/infer", b"".join([header, *data]), headers.items()
    )
    said = json.loads(body)
    assert said.keys() == {"error"}
    return status, said["error"]


def test_a_client_finds_the_server_alive_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("vit")
    assert client.is_model_ready("vit", "1")
    assert not client.is_model_ready("vit", "2")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "prism"


@pytest.mark.parametrize(
    ("name", "inputs", "logits"),
    [
        ("vit", {"pixel_values": [-1, 3, 16, 16]}, [-1, 2]),
        (
            "bert",
            dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), [-1, -1]),
            [-1, 2],
        ),
        (
            "gpt2",
            dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), [-1, -1]),
            [-1, -1, 50],
        ),
    ],
)
def test_metadata_tell_names_datatypes_and_shapes(client, name, inputs, logits):
    found = client.get_model_metadata(name)
    assert found["name"] == name
    assert found["versions"] == ["1"]
    assert {each["name"]: each["shape"] for each in found["inputs"]} == inputs
    assert found["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": logits}]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("plan", ["local", "batch:2", "seq:2:full"])
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_plans_answer_as_the_plain_model(client, plain_models, name, plan, binary):
    inputs = BY_NAME[FAMILIES[name]].inputs(batch=2)
    wanted = [triton.InferRequestedOutput("logits", binary_data=binary)]
    result = asked(client, name, inputs, binary=binary, outputs=wanted, plan=plan)
    expected = logits_of(plain_models, name, inputs)
    np.testing.assert_allclose(result.as_numpy("logits"), expected, atol=1e-5, rtol=1e-5)
    cost = result.get_response()["parameters"]
    assert cost["plan"].split("@")[0].split(":")[0] == plan.split(":")[0]
    parts = ("compute", "staging", "comm", "input", "output")
    # A thread that waited for a busy processor is in the whole, and in no part.
    assert 0 < sum(cost[f"{part}_ms"] for part in parts) <= cost["measured_ms"] + 0.1
    assert cost["batch_rows"] >= 2


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_unpacked(client, plain_models, algorithm):
    inputs = BY_NAME[FAMILIES["vit"]].inputs(batch=1)
    result = client.infer(
        "vit", given_inputs(inputs, binary=True), request_compression_algorithm=algorithm
    )
    expected = logits_of(plain_models, "vit", inputs)
    np.testing.assert_allclose(result.as_numpy("logits"), expected, atol=1e-5, rtol=1e-5)


def test_a_response_repeats_the_id_and_names_the_model(client):
    inputs = given_inputs(BY_NAME[FAMILIES["vit"]].inputs(batch=1), binary=True)
    found = client.infer("vit", inputs, request_id="mine").get_response()
    assert (found["id"], found["model_name"], found["model_version"]) == ("mine", "vit", "1")


def test_half_precision_and_small_integers_are_taken(client, plain_models):
    pixels = BY_NAME[FAMILIES["vit"]].inputs(batch=1)["pixel_values"].half()
    image = triton.InferInput("pixel_values", list(pixels.shape), "FP16")
    image.set_data_from_numpy(pixels.numpy())
    found = client.infer("vit", [image]).as_numpy("logits")
    expected = logits_of(plain_models, "vit", {"pixel_values": pixels.float()})
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)

    ids = BY_NAME[FAMILIES["bert"]].inputs(batch=1)["input_ids"]
    words = triton.InferInput("input_ids", list(ids.shape), "INT32")
    words.set_data_from_numpy(ids.int().numpy(), binary_data=False)
    found = client.infer("bert", [words]).as_numpy("logits")
    expected = logits_of(plain_models, "bert", {"input_ids": ids})
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_classification_gives_score_index_and_label(client, plain_models):
    inputs = BY_NAME[FAMILIES["vit"]].inputs(batch=2)
    wanted = [triton.InferRequestedOutput("logits", class_count=1)]
    found = asked(client, "vit", inputs, outputs=wanted).as_numpy("logits")
    expected = logits_of(plain_models, "vit", inputs)
    assert found.shape == (2, 1)
    for words, row in zip(found[:, 0], expected, strict=True):
        score, index, label = words.decode().split(":")
        assert int(index) == row.argmax()
        assert float(score) == pytest.approx(row.max(), abs=1e-4)
        assert label == f"LABEL_{index}"


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("top_k:1", {"values": (2, 1), "indices": (2, 1), "probabilities": (2, 1)}),
        ("pooled", {"embedding": (2, 32)}),
        ("logits", {"logits": (2, 2)}),
    ],
)
def test_other_forms_of_the_output(client, form, names):
    inputs = BY_NAME[FAMILIES["bert"]].inputs(batch=2)
    result = asked(client, "bert", inputs, output=form)
    shapes = {each["name"]: tuple(each["shape"]) for each in result.get_response()["outputs"]}
    assert shapes == names
    assert all(result.as_numpy(name) is not None for name in names)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"plan": "sequel:2"}, "is not a plan"),
        ({"plan": "seq:5:full"}, "needs 5 nodes"),
        ({"deadline": 3}, "unknown parameter 'deadline'"),
        ({"deadline_ms": 0}, "deadline_ms must lie above 0"),
        ({"objective": "speed"}, "use latency, energy or edp"),
        ({"max_accuracy_drop": 2}, "must lie in 0..1"),
        ({"output": "everything"}, "unknown output"),
    ],
)
def test_a_wrong_parameter_is_refused(client, parameters, said):
    inputs = BY_NAME[FAMILIES["vit"]].inputs(batch=1)
    with pytest.raises(InferenceServerException, match=said) as refused:
        asked(client, "vit", inputs, **parameters)
    assert refused.value.status() == "400"


def test_an_answer_that_comes_too_late_is_not_sent(client):
    inputs = BY_NAME[FAMILIES["vit"]].inputs(batch=1)
    with pytest.raises(InferenceServerException, match="not answered within") as refused:
        asked(client, "vit", inputs, deadline_ms=1e-6)
    assert refused.value.status() == "504"


def test_unknown_models_versions_and_pages(server):
    assert server.get("/v2/models/nobody")[0] == 404
    status, said = server.post("/v2/models/nobody/infer", {"inputs": []})
    assert status == 404
    assert "this server has vit, bert, gpt2" in said["error"]
    assert server.post("/v2/models/vit/versions/7/infer", {"inputs": []})[0] == 404
    assert server.get("/nothing/here") == (404, {"error": "Not Found"})
    assert server.get("/v2/models/vit/infer")[0] == 405


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"inputs": NaN}', "NaN is not JSON"),
        ([], "must be an object"),
        ({}, "inputs must be a list"),
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": [PIXELS], "id": 7}, "id must be a string"),
        ({"inputs": [PIXELS], "parameters": 7}, "parameters of the request must be an object"),
        ({"inputs": [{**PIXELS, "name": "pixels"}]}, "it takes pixel_values"),
        ({"inputs": [{**PIXELS, "datatype": "INT64"}]}, "must be FP32 or FP16, not 'INT64'"),
        ({"inputs": [{**PIXELS, "shape": [3, 16, 16]}]}, r"must be \[-1, 3, 16, 16\]"),
        ({"inputs": [{**PIXELS, "shape": [0, 3, 16, 16]}]}, "any size above 0"),
        ({"inputs": [{**PIXELS, "shape": [10**30, 3, 16, 16], "data": []}]}, "has 0 elements"),
        ({"inputs": [{**PIXELS, "shape": "big"}]}, "must be a list of sizes"),
        ({"inputs": [PIXELS]}, "data of pixel_values must be a list"),
        ({"inputs": [{**PIXELS, "data": [1.0]}]}, "has 1 elements"),
        ({"inputs": [{**PIXELS, "data": ["a"] * 768}]}, "must be numbers for FP32"),
        ({"inputs": [{**PIXELS, "data": [1e300] * 768}]}, "up to 3.40282e"),
        ({"inputs": [{**PIXELS, "data": [0] * 768}] * 2}, "given twice"),
        (
            {"inputs": [{**PIXELS, "parameters": {"shared_memory_region": "/x"}}]},
            "does not take",
        ),
        (
            {"inputs": [{**PIXELS, "data": [0] * 768}], "outputs": [{"name": "hidden"}]},
            "it gives logits",
        ),
    ],
    ids=range(23),
)
def test_a_malformed_document_is_refused_with_a_sentence(server, document, said):
    status, sentence = error_of(server, document)
    assert status == 400
    assert re.search(said, sentence), sentence


@pytest.mark.parametrize(
    ("size", "sent", "said"),
    [
        (3072, 3071, "must lie in 0..3071"),
        (3072, 3073, "1 bytes of the body belong to no input"),
        (3068, 3068, "FP32 of shape .* are 3072"),
        (-1, 0, "must lie in 0..0"),
        ("3072", 3072, "must lie in"),
        (10**40, 3072, "must lie in"),
    ],
)
def test_binary_data_of_another_size_are_refused(server, size, sent, said):
    document = {"inputs": [{**PIXELS, "parameters": {"binary_data_size": size}}]}
    status, sentence = error_of(server, document, bytes(sent), b"")
    assert status == 400
    assert re.search(said, sentence), sentence


@pytest.mark.parametrize("length", ["-1", "many", "99999999", "1e3", "", "٣"])
def test_a_wrong_header_length_is_refused(server, length):
    headers = {LENGTH: length.encode("utf-8")}
    status, sentence = error_of(server, {"inputs": [PIXELS]}, headers=headers)
    assert status == 400
    assert LENGTH in sentence or "JSON" in sentence


def answer_on(line):
    """Return status and body of the response that comes on a socket."""
    response = http.client.HTTPResponse(line)
    response.begin()
    return response.status, response.read()


def test_a_body_that_is_too_long_is_refused_unread(server):
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(
            b"POST /v2/models/vit/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
        )
        status, said = answer_on(line)
    assert status == 413
    assert b"67108864 bytes" in said


def test_a_body_in_pieces_that_grows_too_long_is_refused(server):
    piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(
            b"POST /v2/models/vit/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(65):
            line.sendall(piece)
        assert answer_on(line)[0] == 413


def test_a_small_body_that_unpacks_to_a_huge_one_is_refused(server):
    packing = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(packing.compress(bytes(1 << 20)) for _ in range(80)) + packing.flush()
    headers = {"Content-Encoding": "gzip"}
    assert error_of(server, packed, headers=headers)[0] == 413
    assert error_of(server, packed[:1000], headers=headers)[0] == 400
    assert error_of(server, b"no gzip", headers=headers)[0] == 400
    assert error_of(server, b"", headers={"Content-Encoding": "br"})[0] == 415


def test_a_client_that_leaves_in_the_middle_harms_nobody(server, client):
    for sent in (b"POST", b"POST /v2/models/vit/infer HTTP/1.1\r\nContent-Le", _half_a_request()):
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(sent)
    assert asked(client, "vit", BY_NAME[FAMILIES["vit"]].inputs(batch=1)) is not None


def test_slow_clients_keep_nobody_waiting(server, client):
    with ExitStack() as lines:
        for _ in range(SLOW_CLIENTS):
            line = lines.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            line.sendall(_half_a_request())
        for _ in range(3):
            result = asked(client, "vit", BY_NAME[FAMILIES["vit"]].inputs(batch=1))
            assert result.as_numpy("logits").shape == (1, 2)


def _half_a_request():
    return (
        b"POST /v2/models/vit/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
        + b'{"inputs": ['
    )


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    place=st.integers(0, 3300),
    change=st.binary(max_size=8),
    cut=st.integers(0, 40),
    told=st.integers(-3, 3),
)
def test_no_mutation_of_a_request_is_a_mistake_of_the_server(server, place, change, cut, told):
    document = {"inputs": [{**PIXELS, "parameters": {"binary_data_size": 3072}}]}
    header = json.dumps(document).encode()
    body = header + np.zeros(768, np.float32).tobytes()
    place = min(place, len(body))
    body = body[:place] + change + body[place + cut :]
    headers = {LENGTH: str(len(header) + told)}
    status, _, said = server.ask("POST", "/v2/models/vit/infer", body, headers.items())
    assert status in (200, 400, 404)
    if status != 200:
        assert json.loads(said)["error"]


def test_metrics_count_requests_by_model_route_and_status(server):
    before = counted(server)
    server.post("/v2/models/vit/infer", {"inputs": []})
    key = 'prism_requests_total{model="vit",route="/v2/models/{name}/infer",status="400"}'
    assert counted(server)[key] == before.get(key, 0) + 1


def counted(server):
    _, headers, body = server.ask("GET", "/metrics")
    assert headers["Content-Type"].startswith("text/plain")
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
