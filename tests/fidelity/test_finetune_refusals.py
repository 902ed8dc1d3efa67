"""What fine-tuning refuses, in one sentence, before it overwrites anything."""

import json
import shutil

import pytest
from tests.fidelity.tuning import FEW, PLANS, Stop, images, vars_of

from prism.errors import ConfigError, ModelError, PlanError
from prism.fidelity.finetune import finetune
from prism.fidelity.training import Settings
from prism.models.load import adopt, load
from prism.plan import Plan


def test_an_older_model_stays_until_the_new_one_is_complete(loaded, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("older")
    with pytest.raises(ConfigError, match=r"holds config.json already; .*--force"):
        finetune(loaded, images(), images(2, seed=1), out, FEW)
    assert [path.name for path in out.iterdir()] == ["config.json"]
    with pytest.raises(KeyboardInterrupt):
        finetune(loaded, images(), images(2), out, FEW, force=True, tell=Stop("after", 0.5))
    assert (out / "config.json").read_text() == "older"
    finetune(loaded, images(), images(2), out, FEW, force=True)
    assert json.loads((out / "config.json").read_text())["model_type"] == "vit"


def test_places_that_cannot_be_used_are_refused(loaded, source, tmp_path):
    (tmp_path / "file").write_text("")
    for out, message in (
        (source, "is the model itself"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "out", "file is no directory"),
    ):
        with pytest.raises(ConfigError, match=message):
            finetune(loaded, images(), images(2), out, FEW, force=True)
    log = Settings(**{**vars_of(FEW), "tensorboard": tmp_path / "file"})
    with pytest.raises(ConfigError, match="--tensorboard"):
        finetune(loaded, images(), images(2), tmp_path / "out", log)
    assert not (tmp_path / "out").exists()


def test_a_result_that_cannot_be_moved_is_kept(loaded, tmp_path):
    out = tmp_path / "out"
    (out / "config.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"cannot move .* to .*config.json"):
        finetune(loaded, images(), images(2), out, FEW, force=True)
    (out / "config.json").rmdir()
    again = Stop("never", 1)
    finetune(loaded, images(), images(2), out, FEW, force=True, tell=again)
    assert again.steps == [] and (out / "config.json").is_file()


def test_a_publication_that_was_stopped_is_finished_by_the_same_call(loaded, tmp_path):
    out, data = tmp_path / "out", (images(), images(2))

    def stand_in_the_way(progress):
        if progress.phase == "after":
            (out / "model.safetensors" / "x").mkdir(parents=True, exist_ok=True)

    with pytest.raises(ConfigError, match=r"cannot move .* to .*model.safetensors"):
        finetune(loaded, *data, out, FEW, tell=stand_in_the_way)
    assert (out / "config.json").is_file()  # moved already
    shutil.rmtree(out / "model.safetensors")
    other = Settings(**{**vars_of(FEW), "seed": 5})
    with pytest.raises(ConfigError, match="unfinished training with --seed 0, not 5"):
        finetune(loaded, *data, out, other)
    again = Stop("never", 1)
    outcome = finetune(loaded, *data, out, FEW, tell=again)
    assert again.steps == [] and load(str(out)).fingerprint == outcome.fingerprint
    assert not (out / ".checkpoint").exists()
    with pytest.raises(ConfigError, match="holds .* already"):
        finetune(loaded, *data, out, FEW)


def test_models_that_cannot_be_trained_are_refused(loaded, tmp_path):
    half = adopt(load(loaded.info.source, "bfloat16").model)
    with pytest.raises(ModelError, match=r"in torch.bfloat16; load it in float32"):
        finetune(half, images(), images(2), tmp_path / "out", FEW)
    loaded.model.config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(ModelError, match="is quantised"):
        finetune(loaded, images(), images(2), tmp_path / "out", FEW)
    with pytest.raises(PlanError, match="seq:2:full is exact"):
        exact = Settings(plans=(Plan.parse("seq:2:full"),))
        finetune(loaded, images(), images(2), tmp_path / "out", exact)
    assert not (tmp_path / "out").exists()


def test_a_training_that_diverges_says_so(loaded, tmp_path):
    wild = Settings(plans=PLANS, steps=20, learning_rate=1e12, batch=2)
    with pytest.raises(ConfigError, match="give a lower --learning-rate"):
        finetune(loaded, images(), images(2), tmp_path / "out", wild)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("budget_s", float("inf")),
        ("learning_rate", -1.0),
        ("labels_weight", float("nan")),
        ("unequal", 1.5),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match="must"):
        Settings(**{name: value})
