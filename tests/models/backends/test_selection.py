"""Which backend a name means, what is refused, and what `auto` picks."""

import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.families import BY_NAME
from tests.models.backends.prepared import prepared

from prism.errors import ConfigError, UnsupportedPrecision
from prism.models.backends import AUTO, BACKENDS, EAGER, choose
from prism.models.load import adopt

VIT = BY_NAME["ViTForImageClassification"]


class Doubled:
    """A backend that gives wrong outputs."""

    name = "doubled"
    hooked = False

    def obstacle(self, loaded):
        return ""

    def prepare(self, loaded):
        def call(**inputs):
            output = loaded.model(**inputs)
            return type(output)(logits=2 * output.logits)

        return call


class Failing(Doubled):
    """A backend that cannot convert anything."""

    name = "failing"

    def prepare(self, loaded):
        raise UnsupportedPrecision("failing cannot run anything; use eager")


@pytest.fixture
def others(monkeypatch):
    """Offer eager and two backends that are no good."""
    offered = {each.name: each for each in (EAGER, Doubled(), Failing())}
    monkeypatch.setattr("prism.models.backends.selection.BACKENDS", offered)
    return offered


def test_eager_is_the_model_itself():
    loaded = adopt(VIT.model())
    chosen = choose("eager", loaded)
    assert (chosen.name, chosen.hooked, chosen.call) == ("eager", True, loaded.model)


def test_an_unknown_backend_is_refused_with_the_ones_there_are():
    with pytest.raises(ConfigError, match="no backend 'tensorrt'; use eager, packed, .*auto"):
        choose("tensorrt", adopt(VIT.model()))


def test_other_outputs_than_eagers_are_refused_by_name(others):
    said = "doubled gives other outputs than eager for ViTForImageClassification at float32"
    with pytest.raises(UnsupportedPrecision, match=said):
        choose("doubled", adopt(VIT.model()))


def test_auto_leaves_out_what_cannot_run_and_says_why(others):
    chosen = choose(AUTO, adopt(VIT.model()))
    assert chosen.name == "eager"
    assert set(chosen.refused) == {"doubled", "failing"}
    assert set(chosen.measured_s) == {"eager"}
    assert "differ by 1.0e+00" in chosen.refused["doubled"]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_an_extra_that_is_not_installed_is_named(monkeypatch, backend):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == backend else found(name)
    )
    with pytest.raises(UnsupportedPrecision, match=rf"pip install 'prism-edge\[{backend}\]'"):
        choose(backend, adopt(VIT.model()))


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UnsupportedPrecision, match="no-such-compiler was not found; install g"):
        choose("compile", adopt(VIT.model()))


def test_every_backend_says_what_it_does_with_int8():
    loaded = replace(adopt(VIT.model()), precision="int8")
    for name in ("compile", "openvino", "onnxruntime"):
        obstacle = BACKENDS[name].obstacle(loaded)
        assert "int8" in obstacle or "not installed" in obstacle or "needs" in obstacle


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_recorded_blocks_are_no_part_of_a_graph(backend):
    model = VIT.model(output_hidden_states=True)
    with pytest.raises(UnsupportedPrecision, match="outputs of its blocks|not installed"):
        BACKENDS[backend].prepare(adopt(model))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_no_file_is_left(monkeypatch, tmp_path, backend):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    prepared(backend, adopt(VIT.model()))
    assert list(Path(tmp_path).iterdir()) == []


def test_what_was_prepared_is_used_and_parts_are_prepared_again():
    loaded = adopt(VIT.model())
    chosen = choose("eager", loaded)
    assert chosen.prepare(loaded) is chosen.call
    base = replace(loaded, model=loaded.model.base_model)
    assert chosen.prepare(base) is loaded.model.base_model


def test_auto_measures_every_backend_that_runs_here(monkeypatch):
    fast = {name: each for name, each in BACKENDS.items() if name != "compile"}
    monkeypatch.setattr("prism.models.backends.selection.BACKENDS", fast)
    loaded = adopt(VIT.model())
    chosen = choose(AUTO, loaded)
    assert set(chosen.measured_s) | set(chosen.refused) == set(fast)
    assert all("install" in reason for reason in chosen.refused.values())
    with torch.inference_mode():
        assert chosen.prepare(loaded)(**VIT.inputs()).logits.shape == (2, 2)
