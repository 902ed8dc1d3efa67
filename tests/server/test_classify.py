"""An image or a text in, the likeliest labels out."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.server.task_server import MOST_TOKENS, app_of, sentence_model, text_classifier
from tests.server.test_uploads import file_of, png_claiming
from transformers import AutoTokenizer, BertForSequenceClassification, ViTForImageClassification

import prism
from prism.models.held_out import grey, packed_images
from prism.models.load import describe
from prism.models.processing import image_inputs

FORM = "multipart/form-data; boundary=cut"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return text_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def client(directory, tmp_path_factory):
    sentences = sentence_model(tmp_path_factory.mktemp("sentence"))
    with prism.local_cluster(nodes=1, threads=1) as cluster:
        load = cluster.load
        app = app_of(digits=load("digits"), mood=load(directory), vectors=load(sentences))
        with TestClient(app) as client:
            yield client


@pytest.fixture(scope="module")
def digit():
    """An image of the package, and the digit it shows."""
    ink, digits = packed_images()
    return Image.fromarray(grey(ink[:1])[0]), int(digits[0])


def expected_digits(image):
    """What plain transformers says of an image: the probability of each digit."""
    info = describe("digits")
    model = ViTForImageClassification.from_pretrained(info.files).eval()
    pixels = info.normalisation.apply(image_inputs(info, [image])["pixel_values"])
    with torch.inference_mode():
        return model(pixel_values=pixels).logits[0].softmax(-1).numpy()


def upload(client, content, **fields):
    return client.post(
        "/v1/classify",
        files={"file": ("any.png", content, "image/png")},
        data={"model": "digits", **fields},
    )


def ask(client, **fields):
    return client.post("/v1/classify", content=json.dumps({"model": "digits", **fields}))


def encoded(content):
    return base64.b64encode(content).decode()


def refusal(response, status):
    assert response.status_code == status, response.text
    return response.json()["error"]["message"]


def test_an_image_gets_the_labels_that_transformers_gives(client, digit):
    image, shown = digit
    response = upload(client, file_of(image), top_k="3")
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["model"] == "digits" and document["object"] == "classification"
    assert document["parameters"]["plan"].startswith("local")
    expected = expected_digits(image)
    best = np.argsort(-expected)[:3]
    assert document["labels"][0]["index"] == shown
    assert [each["index"] for each in document["labels"]] == best.tolist()
    made = [each["probability"] for each in document["labels"]]
    assert np.allclose(made, expected[best], atol=1e-5)
    assert all(each["label"] == str(each["index"]) for each in document["labels"])


def test_base64_gives_what_an_upload_gives(client, digit):
    content = file_of(digit[0])
    uploaded = upload(client, content).json()["labels"]
    assert len(uploaded) == 5
    assert ask(client, image=encoded(content)).json()["labels"] == uploaded


def test_all_labels_may_be_asked_for_and_no_more(client, digit):
    labels = ask(client, image=encoded(file_of(digit[0])), top_k=1000).json()["labels"]
    assert len(labels) == 10
    assert sum(each["probability"] for each in labels) == pytest.approx(1, abs=1e-4)


def test_a_text_gets_its_labels(client, directory):
    response = ask(client, model="mood", text="the cat sat down")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = BertForSequenceClassification.from_pretrained(directory).eval()
    with torch.inference_mode():
        logits = model(**tokenizer("the cat sat down", return_tensors="pt")).logits[0]
    labels = response.json()["labels"]
    chances = logits.softmax(-1)
    order = chances.argsort(descending=True).tolist()
    assert [each["label"] for each in labels] == [["calm", "cross", "glad"][at] for at in order]
    assert np.allclose([each["probability"] for each in labels], chances[order], atol=1e-5)
    sent = {"text": (None, "the cat sat down")}
    assert "name a model" in refusal(client.post("/v1/classify", files=sent), 400)
    sent = {"model": (None, "mood"), "text": (None, "the cat sat down")}
    assert client.post("/v1/classify", files=sent).json()["labels"] == labels


def test_a_text_too_long_is_refused_or_cut(client):
    text = "the cat " * 20
    message = refusal(ask(client, model="mood", text=text), 400)
    assert f"has 42 tokens, the model takes {MOST_TOKENS}" in message
    assert ask(client, model="mood", text=text, truncate=True).status_code == 200


@pytest.mark.parametrize("way", ["form", "json"])
def test_a_request_says_how_it_runs(client, digit, way):
    content = file_of(digit[0])
    given = {"plan": "seq:2:full", "deadline_ms": 60_000}
    if way == "form":
        message = refusal(upload(client, content, **given), 400)
    else:
        message = refusal(ask(client, image=encoded(content), parameters=given), 400)
    assert "needs 2 nodes, the cluster has 1" in message


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"hello", 400, "not an image"),
        (b"", 400, "not an image"),
        (png_claiming(20_000, 20_000), 413, "at most 40 million"),
        (png_claiming(100_000, 2), 400, "longer side"),
        (file_of(Image.new("L", (64, 64)))[:60], 400, "is broken"),
    ],
)
def test_what_is_no_image_that_can_be_read_is_refused(client, content, status, words):
    assert words in refusal(upload(client, content), status)
    assert words in refusal(ask(client, image=encoded(content)), status)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "either an image"),
        ({"image": "AAAA", "text": "a"}, "either an image"),
        ({"image": "http://host/a.png"}, "never opened"),
        ({"image": "/etc/passwd"}, "never opened"),
        ({"image": {"url": "file:///etc/passwd"}}, "image must be a text"),
        ({"text": "the cat"}, "reads images, not text"),
        ({"image": "AAAA", "model": "mood"}, "reads text, not images"),
        ({"text": "a cat", "model": "vectors"}, "no classifier"),
        ({"text": "  ", "model": "mood"}, "is empty"),
        ({"text": "a", "model": "mood", "top_k": 0}, "at least 1"),
        ({"text": "a", "model": "mood", "top_k": 1.5}, "whole number"),
        ({"text": "a", "model": "mood", "parameters": []}, "parameters must be an object"),
        ({"text": "a", "model": "mood", "parameters": {"plan": "x"}}, "is not a plan"),
        ({"text": "a", "model": "mood", "topk": 3}, "unknown field 'topk'"),
    ],
)
def test_bad_input_is_refused(client, fields, words):
    assert words in refusal(ask(client, **fields), 400)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"top_k": "many"}, "whole number"),
        ({"deadline_ms": "soon"}, "deadline_ms must be a number"),
        ({"deadline_ms": "nan"}, "finite"),
        ({"truncate": "yes"}, "true or false"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_bad_fields_of_a_form_are_refused(client, digit, fields, words):
    assert words in refusal(upload(client, file_of(digit[0]), **fields), 400)


def test_a_file_of_another_name_and_a_second_file_are_refused(client, digit):
    content = file_of(digit[0])
    other = client.post("/v1/classify", files={"picture": ("a.png", content)})
    assert "must be named file, not 'picture'" in refusal(other, 400)
    two = client.post("/v1/classify", files=[("file", ("a", content)), ("file", ("b", content))])
    assert "'file' twice" in refusal(two, 400)


def test_an_unknown_model_is_404(client):
    assert "digits" in refusal(ask(client, model="other", text="a"), 404)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, b""),
        (FORM, b"--cut"),
        (FORM, b"--cut\r\n\r\n\r\n--cut--\r\n"),
        (FORM, b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'),
        (FORM, b"--other\r\n"),
        ("multipart/form-data", b"--cut--"),
        ("multipart/form-data; boundary=" + "x" * 300, b""),
        ("text/plain", b"hello"),
        ("", b""),
    ],
)
def test_a_body_that_is_no_form_is_refused(client, kind, body):
    refusal(client.post("/v1/classify", content=body, headers={"content-type": kind}), 400)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_broken_form_is_a_mistake_of_the_server(client, digit, data):
    parts = io.BytesIO()
    parts.write(b'--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\ndigits\r\n')
    parts.write(b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n')
    parts.write(file_of(digit[0]) + b"\r\n--cut--\r\n")
    broken = bytearray(parts.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
    response = client.post("/v1/classify", content=bytes(broken), headers={"content-type": FORM})
    assert response.status_code in (200, 400, 404, 413), response.text
