"""From a MODEL argument to a model: directories, ids, random weights, and what is wrong there."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families import BY_NAME

from prism.errors import ModelError, UnsupportedModel
from prism.models.load import adopt, describe, fingerprint, load
from prism.models.source import packaged

VIT = BY_NAME["ViTForImageClassification"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("vit")
    VIT.model().save_pretrained(directory)
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    """A copy of the saved model to spoil."""
    return shutil.copytree(saved, tmp_path / "model")


def rewrite_config(directory, **changes):
    path = directory / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_a_directory_gives_the_model_that_was_saved(saved):
    info = describe(str(saved))
    assert (info.source, info.architecture.__name__) == (str(saved), VIT.name)
    assert (info.family.name, info.normalisation) == ("vit", None)
    loaded = load(str(saved))
    assert not loaded.model.training
    inputs = VIT.inputs()
    with torch.no_grad():
        assert torch.equal(loaded.model(**inputs).logits, VIT.model()(**inputs).logits)


@pytest.mark.parametrize(
    "name", ["WhisperEncoder", "CLIPTextModelWithProjection", "GPT2LMHeadModel", "BertModel"]
)
def test_the_class_named_in_the_configuration_is_loaded(name, tmp_path):
    model = BY_NAME[name].model()
    model.save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    assert type(loaded.model).__name__ == name
    inputs = BY_NAME[name].inputs()
    with torch.no_grad():
        assert torch.equal(loaded.model(**inputs)[0], model(**inputs)[0])


def test_weights_take_the_dtype_asked_for(saved):
    loaded = load(str(saved), dtype="bfloat16")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}


def test_random_weights_are_the_same_everywhere(saved):
    source = f"random:{saved}"
    state = torch.get_rng_state()
    first, second = load(source), load(source)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != load(str(saved)).fingerprint
    assert first.info.source == source
    # There is no processor beside random weights, yet images are to be timed as uint8.
    assert first.info.normalisation is not None


def test_presets_need_no_network():
    info = describe("random:vit-base")
    shape = info.shape
    assert (shape.family, shape.blocks, shape.hidden, shape.max_length) == ("vit", 12, 768, 197)
    assert describe("random:gpt2").architecture.__name__ == "GPT2LMHeadModel"


def test_digits_is_the_model_in_the_package_and_random_digits_its_configuration():
    loaded = load("digits")
    assert loaded.info.source == "digits"  # and not a path, which other devices do not share
    table = json.loads((packaged("digits") / "accuracy.json").read_text())
    assert loaded.fingerprint == table["model_hash"]
    random = load("random:digits")
    assert random.info.shape == loaded.info.shape
    assert random.info.normalisation == loaded.info.normalisation
    assert random.fingerprint != loaded.fingerprint


def test_a_directory_called_digits_is_meant_when_it_is_written_as_one(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, tmp_path / "digits")
    shipped = json.loads((packaged("digits") / "config.json").read_text())["hidden_size"]
    for name, hidden in (("digits", shipped), ("./digits", VIT.model().config.hidden_size)):
        assert describe(name).shape.hidden == hidden
        assert describe(f"random:{name}").shape.hidden == hidden


def test_a_home_directory_may_be_abbreviated(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    assert load(f"~/{saved.name}").fingerprint == load(str(saved)).fingerprint


def test_the_fingerprint_tells_weights_and_configurations_apart(saved, directory):
    expected = load(str(saved)).fingerprint
    assert load(str(directory)).fingerprint == expected
    weights = directory / "model.safetensors"
    tensors = load_file(weights)
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[0] += 1e-6
    save_file(tensors, weights, metadata={"format": "pt"})
    assert load(str(directory)).fingerprint != expected
    shutil.copy(saved / "model.safetensors", weights)
    rewrite_config(directory, layer_norm_eps=1e-5)
    assert load(str(directory)).fingerprint != expected


def test_the_fingerprint_does_not_change_where_a_release_names_a_part_otherwise(saved):
    loaded = load(str(saved))
    vit = loaded.model.vit
    vit.embedder = vit.embeddings
    del vit.embeddings
    assert fingerprint(loaded.model) == loaded.fingerprint


def test_a_model_in_memory_has_the_fingerprint_of_its_directory(saved):
    model = load(str(saved)).model
    assert adopt(model.train()).fingerprint == fingerprint(model)
    assert not model.training


def test_missing_weights_are_named(directory):
    weights = directory / "model.safetensors"
    tensors = load_file(weights)
    for name in [name for name in tensors if ".layer.1." in name]:
        del tensors[name]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights of ViTFor.*layers?\.1\..* and \d+ more"):
        load(str(directory))


def test_weights_of_another_shape_are_refused(directory):
    rewrite_config(directory, intermediate_size=48)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(str(directory))


@pytest.mark.parametrize("content", [None, b"", b"not safetensors"])
def test_broken_weights_are_refused(directory, content):
    weights = directory / "model.safetensors"
    weights.unlink() if content is None else weights.write_bytes(content)
    with pytest.raises(ModelError, match="model cannot be loaded"):
        load(str(directory))


@pytest.mark.parametrize("source", ["/no/such/model", "./none", "~/no-such-model", "a/b/c"])
def test_a_missing_directory_is_named(source):
    with pytest.raises(ModelError, match=f"model directory {source} does not exist"):
        describe(source)


def test_a_directory_without_configuration_is_named(tmp_path):
    with pytest.raises(ModelError, match="has no config.json; give a model directory"):
        describe(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": "no-such-type"}'])
def test_a_broken_configuration_is_named(directory, text):
    (directory / "config.json").write_text(text)
    with pytest.raises(ModelError, match=str(directory)):
        describe(str(directory))


@pytest.mark.parametrize("source", ["no-such/model", "nosuchmodel", "not an id!"])
def test_an_id_that_cannot_be_reached_is_named(source):
    with pytest.raises(ModelError, match=f"{source} is neither a model directory nor a Hugging"):
        describe(source)


def test_an_unknown_preset_is_named():
    with pytest.raises(
        ModelError, match="'vit-huge' is neither a directory nor one of vit-tiny.*, digits"
    ):
        describe("random:vit-huge")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "names no class in `architectures`; add it"),
        (["NoSuchModel"], "asks for NoSuchModel, which this transformers does not have"),
        (["ViTConfig"], "asks for ViTConfig, which this transformers does not have"),
    ],
)
def test_the_class_must_exist(directory, names, message):
    rewrite_config(directory, architectures=names)
    with pytest.raises(ModelError, match=message):
        describe(str(directory))


@pytest.mark.parametrize(
    ("model_type", "architecture", "reason"),
    [
        ("t5", "T5EncoderModel", "t5 cannot be partitioned: it adds a relative-position bias"),
        ("swin", "SwinModel", "swin cannot be partitioned: it attends in shifted windows"),
        ("resnet", "ResNetModel", "'resnet' is no family prism knows"),
    ],
)
def test_unsupported_models_are_refused_with_the_reason(tmp_path, model_type, architecture, reason):
    config = {"model_type": model_type, "architectures": [architecture]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=reason):
        describe(str(tmp_path))
