"""Texts in, vectors out, for the clients that there are."""

import base64
import json

import numpy as np
import openai
import pytest
import torch
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.machines import tiny_vit
from tests.server.task_server import (
    MOST_SENTENCE,
    SPECIAL,
    WORDS,
    app_of,
    listening,
    sentence_model,
)
from transformers import AutoTokenizer, BertModel

import prism
from prism.errors import RequestError
from prism.models.load import describe
from prism.server.embeddings import MOST_INPUTS, EmbeddingModel, EmbeddingsQuestion

TEXTS = ["the cat sat down", "a dog", "The Dog ran up the cat", "unheard words"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return sentence_model(tmp_path_factory.mktemp("sentence"))


@pytest.fixture(scope="module")
def models(directory):
    with prism.local_cluster(nodes=1, threads=1) as cluster:
        yield {"sentences": cluster.load(directory), "images": cluster.load(tiny_vit())}


@pytest.fixture(scope="module")
def client(models):
    with TestClient(app_of(**models)) as client:
        yield client


@pytest.fixture(scope="module")
def reference(directory):
    """Sentence embeddings as sentence-transformers defines them, one text at a time."""
    tokenizer, model = (
        AutoTokenizer.from_pretrained(directory),
        BertModel.from_pretrained(directory),
    )

    def embed(text):
        inputs = tokenizer(
            text.lower(), truncation=True, max_length=MOST_SENTENCE, return_tensors="pt"
        )
        with torch.inference_mode():
            rows_ND = model(**inputs).last_hidden_state[0]
        return torch.nn.functional.normalize(rows_ND.mean(0), dim=0).numpy()

    return embed


def ask(client, **fields):
    return client.post("/v1/embeddings", json={"model": "sentences", **fields})


def vectors(response):
    assert response.status_code == 200, response.text
    return np.array([each["embedding"] for each in response.json()["data"]])


def test_vectors_are_those_of_sentence_transformers(client, reference):
    response = ask(client, input=TEXTS)
    expected = np.stack([reference(text) for text in TEXTS])
    assert np.allclose(vectors(response), expected, atol=1e-5)
    document = response.json()
    assert document["object"] == "list" and document["model"] == "sentences"
    assert [each["index"] for each in document["data"]] == [0, 1, 2, 3]
    assert {each["object"] for each in document["data"]} == {"embedding"}
    tokens = sum(len(text.split()) + 2 for text in TEXTS)
    assert document["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert document["parameters"]["plan"].startswith("local")


def test_the_openai_client_works_unmodified(models, reference):
    with (
        listening(app_of(**models)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="any") as client,
    ):
        expected = np.stack([reference(text) for text in TEXTS])
        for form in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            answer = client.embeddings.create(model="sentences", input=TEXTS, **form)
            made = [each.embedding for each in answer.data]
            if form.get("encoding_format") == "base64":
                made = [np.frombuffer(base64.b64decode(each), "<f4") for each in made]
            assert np.allclose(made, expected, atol=1e-5)
        assert answer.usage.prompt_tokens == sum(len(text.split()) + 2 for text in TEXTS)
        assert [each.id for each in client.models.list()] == ["sentences", "images"]
        assert client.models.retrieve("sentences").owned_by == "prism"
        with pytest.raises(openai.NotFoundError, match="no model 'other'"):
            client.embeddings.create(model="other", input="the cat")
        with pytest.raises(openai.BadRequestError, match="12 tokens; shorten it") as refused:
            client.embeddings.create(model="sentences", input="the cat " * 20)
        assert refused.value.type == "invalid_request_error"


def test_token_ids_give_what_their_text_gives(client, directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = [tokenizer(text.lower())["input_ids"] for text in TEXTS]
    expected = vectors(ask(client, input=TEXTS))
    assert np.allclose(vectors(ask(client, input=ids)), expected, atol=1e-6)
    assert np.allclose(vectors(ask(client, input=ids[0])), expected[:1], atol=1e-5)


def test_many_texts_come_back_in_their_order(client, reference):
    texts = [" ".join(WORDS[: 1 + at % len(WORDS)]) + f" {WORDS[at % 7]}" for at in range(150)]
    expected = np.stack([reference(text) for text in texts])
    assert np.allclose(vectors(ask(client, input=texts)), expected, atol=1e-5)


def test_a_text_too_long_is_refused_or_cut(client, reference):
    text = "the cat sat down " * 9
    refused = ask(client, input=["a dog", text])
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert "input 2 has 38 tokens, the model takes 12" in message and "truncate" in message
    expected = reference(text)
    for asked in ({"truncate": True}, {"truncate_prompt_tokens": -1}):
        assert np.allclose(vectors(ask(client, input=text, **asked))[0], expected, atol=1e-5)
    cut = ask(client, input=text, truncate_prompt_tokens=5)
    assert cut.json()["usage"]["prompt_tokens"] == 5
    assert np.allclose(vectors(cut)[0], reference("the cat sat"), atol=1e-5)


def test_a_text_far_too_long_is_not_even_tokenised(client, reference):
    text = "the cat sat down " * 100_000
    refused = ask(client, input=text)
    assert refused.status_code == 400 and "1700000 characters" in refused.text
    cut = vectors(ask(client, input=text, truncate=True))
    assert np.allclose(cut[0], reference("the cat sat down " * 9), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "input must be a text"),
        ({"input": []}, "input must be a text"),
        ({"input": [[]]}, "input 1 holds no token"),
        ({"input": {"a": 1}}, "input must be a text"),
        ({"input": ["the", 3]}, "input must be a text"),
        ({"input": [True]}, "input must be a text"),
        ({"input": [1.5]}, "input must be a text"),
        ({"input": ["the", " "]}, "input 2 is empty"),
        ({"input": "\ud800"}, "surrogate"),
        ({"input": [[5], [5, len(SPECIAL + WORDS)]]}, "input 2 holds token 12"),
        ({"input": [10**40]}, "holds token 1000"),
        ({"input": [-1]}, "holds token -1"),
        ({"input": ["a"] * (MOST_INPUTS + 1)}, f"at most {MOST_INPUTS}"),
        ({"input": "a", "encoding_format": "hex"}, "float or base64"),
        ({"input": "a", "dimensions": 8}, "vectors have 32"),
        ({"input": "a", "dimensions": "32"}, "whole number"),
        ({"input": "a", "truncate": 1}, "true or false"),
        ({"input": "a", "truncate_prompt_tokens": 13}, "1 to 12 tokens"),
        ({"input": "a", "truncate_prompt_tokens": 2}, "2 special tokens"),
        ({"input": "a", "truncat": True}, "unknown field 'truncat'"),
        ({"input": "a", "parameters": {"plan": "sideways"}}, "is not a plan"),
        ({"input": "a", "parameters": {"deadline_ms": -1}}, "deadline_ms"),
        ({"input": "a", "parameters": {"output": "full"}}, "unknown parameter 'output'"),
        ({"input": "a", "model": 3}, "model must be a text"),
        ({"input": "a", "model": "images"}, "reads images, not text"),
        ({"input": [5], "model": "images"}, "reads images, not text"),
        ({"input": "a", "model": None}, "name a model"),
    ],
)
def test_bad_input_is_refused_in_openais_shape(client, fields, words):
    body = json.dumps({"model": "sentences", **fields})
    response = client.post("/v1/embeddings", content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert words in error["message"] and error["type"] == "invalid_request_error"
    assert {"message", "type", "param", "code"} == error.keys()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"input": NaN}'])
def test_what_is_no_json_object_is_refused(client, body):
    response = client.post("/v1/embeddings", content=body)
    assert response.status_code == 400 and "JSON" in response.json()["error"]["message"]


def test_the_dimensions_there_are_may_be_asked_for(client):
    assert vectors(ask(client, input="a dog", dimensions=32)).shape == (1, 32)


def test_an_unknown_model_is_404(client):
    response = ask(client, input="a", model="other")
    assert response.status_code == 404 and "sentences" in response.json()["error"]["message"]
    assert client.get("/v1/models/other").status_code == 404


def test_a_deadline_that_passes_is_504(client):
    response = ask(client, input=TEXTS, parameters={"deadline_ms": 0.001})
    assert response.status_code == 504 and "time" in response.json()["error"]["message"]


def test_models_are_listed_as_openai_does(client):
    document = client.get("/v1/models").json()
    assert document["object"] == "list"
    assert [each["id"] for each in document["data"]] == ["sentences", "images"]
    assert client.get("/v1/models/images").json() == document["data"][1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("input", "model", "encoding_format", "dimensions", "truncate", "parameters")
TEXT = st.text(alphabet=st.characters(), max_size=40) | st.sampled_from(TEXTS)
INPUTS = TEXT | st.lists(TEXT, max_size=3) | st.lists(st.integers(-1, 12), max_size=14) | JSON


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), INPUTS)
def test_no_request_is_a_mistake_of_the_server(client, fields, inputs):
    document = {"model": "sentences", "input": inputs, **fields}
    response = client.post("/v1/embeddings", content=json.dumps(document))
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]


def test_a_question_with_nothing_but_its_input_has_the_usual_answers():
    question = EmbeddingsQuestion.of({"input": "a"})
    assert question.texts == ("a",) and not question.as_base64 and not question.truncate


def test_a_model_without_a_tokenizer_says_so(tmp_path, directory):
    model = BertModel.from_pretrained(directory)
    model.save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="no tokenizer"):
        EmbeddingModel(describe(str(tmp_path))).rows(EmbeddingsQuestion.of({"input": "a"}), 0)


def test_the_description_tells_of_the_routes(client):
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v1/embeddings", "/v1/classify"):
        assert "application/json" in paths[path]["post"]["requestBody"]["content"]
    assert "get" in paths["/v1/models/{name}"]
