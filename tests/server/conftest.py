import pytest
from tests.families import BY_NAME
from tests.server.process import ServerProcess

FAMILIES = {
    "vit": "ViTForImageClassification",
    "bert": "BertForSequenceClassification",
    "gpt2": "GPT2LMHeadModel",
}


@pytest.fixture(scope="session")
def plain_models():
    """The models that the server has, as transformers runs them."""
    return {name: BY_NAME[family].model() for name, family in FAMILIES.items()}


@pytest.fixture(scope="session")
def model_directories(plain_models, tmp_path_factory):
    places = {}
    for name, model in plain_models.items():
        places[name] = tmp_path_factory.mktemp("served") / name
        model.save_pretrained(places[name])
    return places


@pytest.fixture(scope="session")
def server(model_directories, tmp_path_factory):
    """A server with two nodes, shared by all tests that leave it healthy."""
    log = tmp_path_factory.mktemp("server") / "log"
    options = ["--local-nodes", 2, "--threads", 1]
    with ServerProcess(log, *model_directories.values(), *options) as process:
        yield process
