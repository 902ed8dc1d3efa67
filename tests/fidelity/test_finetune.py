"""One checkpoint for every plan: what fine-tuning changes, keeps, refuses and goes on from."""

import json
import random

import pytest
import torch
from tests.families import BY_NAME
from tests.fidelity.tuning import (
    FEW,
    PLANS,
    Stop,
    images,
    pixels,
    samples_of,
    vars_of,
)
from transformers import AutoModelForImageClassification, BertModel, ViTForImageClassification

from prism.errors import ConfigError, RequestError
from prism.fidelity.accuracy import accuracy_of
from prism.fidelity.distillation import answer_of, distance
from prism.fidelity.finetune import finetune, hold_out
from prism.fidelity.schedule import rows_of_step
from prism.fidelity.training import Settings, Training
from prism.models.load import adopt, fingerprint, load
from prism.models.virtual import virtual
from prism.plan import Plan


def losses(model, original, plans=PLANS):
    inputs = {"pixel_values": pixels(16)}
    found = []
    with torch.no_grad():
        target = answer_of(adopt(original).info, original, inputs)
        for plan in (Plan(), *plans):
            with virtual(model, plan):
                answer = answer_of(adopt(model).info, model, inputs)
            found.append(distance(answer, target, model.config).item())
    return found


def test_one_checkpoint_serves_every_plan_and_stays_what_it_was(loaded, tmp_path):
    before = fingerprint(loaded.model)
    settings = Settings(plans=PLANS, steps=60, batch=8, learning_rate=3e-3)
    outcome = finetune(loaded, images(16), images(8, seed=1), tmp_path / "out", settings)
    assert fingerprint(loaded.model) == before

    tuned = load(str(tmp_path / "out"))
    untrained, trained = (losses(each.model, loaded.model) for each in (loaded, tuned))
    assert all(after < 0.4 * start for after, start in zip(trained[1:], untrained[1:], strict=True))
    assert trained[0] < 0.2 * min(untrained[1:])
    assert outcome.kept.metric == "agreement" and outcome.kept.count == 8
    assert outcome.kept.accuracy >= 0.5
    assert outcome.steps == 60 and outcome.plans == PLANS


def test_what_comes_out_needs_no_prism(loaded, source, tmp_path):
    out = tmp_path / "deep" / "out"
    outcome = finetune(loaded, images(), images(4, seed=1), out, FEW, command="a command")
    model = AutoModelForImageClassification.from_pretrained(out)
    assert type(model) is ViTForImageClassification
    assert (out / "preprocessor_config.json").read_bytes() == (
        source / "preprocessor_config.json"
    ).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == [
        "accuracy.json",
        "accuracy_before.json",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    shapes = ["local", *map(str, PLANS)]
    table = accuracy_of(str(out), load(str(out)).fingerprint)
    assert [entry.plan for entry in table] == shapes
    assert [entry.plan for entry in outcome.after] == shapes
    earlier = json.loads((out / "accuracy_before.json").read_text())
    assert earlier["model_hash"] == loaded.fingerprint and list(earlier["plans"]) == shapes
    assert earlier["command"] == "a command"


def test_the_gradient_is_that_of_the_mean_over_the_plans_of_a_step(loaded):
    training = Training(loaded, images(8), FEW)
    with torch.no_grad():  # away from the original, where the gradient of the exact path is zero
        for parameter in training.model.parameters():
            parameter += 0.05
    found = training._gradients()
    summed = {name: each.grad.clone() for name, each in training.model.named_parameters()}

    training.model.zero_grad()
    plans = training._sandwich.draw(random.Random(training._chance()))
    assert list(plans) == list(found)
    rows = rows_of_step(0, FEW.batch, 8, FEW.seed)
    inputs = {"pixel_values": pixels(8)[rows]}
    target = {
        name: value.detach() for name, value in answer_of(loaded.info, loaded.model, inputs).items()
    }
    total = 0
    for name, plan in plans.items():
        with virtual(training.model, plan):
            loss = distance(
                answer_of(loaded.info, training.model, inputs), target, training.model.config
            )
        assert loss.item() == pytest.approx(found[name])
        total = total + loss / len(plans)
    total.backward()
    for name, parameter in training.model.named_parameters():
        torch.testing.assert_close(summed[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_labels_are_learnt_where_there_are_some(loaded):
    labels = torch.arange(16) % 4
    settings = Settings(plans=PLANS, steps=60, batch=8, learning_rate=3e-3, labels_weight=3.0)
    training = Training(loaded, images(16, labels=labels), settings)
    inputs = {"pixel_values": pixels(16)}

    def right(model):
        logits = answer_of(loaded.info, model, inputs)["logits"]
        return (logits.argmax(-1) == labels).float().mean().item()

    while training.done < 1:
        training.step()
    assert right(training.model) > right(loaded.model) + 0.3

    ignored = Settings(plans=PLANS, steps=1, labels_weight=0.0)
    step = Training(loaded, images(16, labels=labels), ignored).step()
    assert step.losses["exact"] == pytest.approx(0, abs=1e-6)


def test_a_model_of_texts_trains_on_real_tokens(tmp_path):
    case = BY_NAME["BertModel"]
    model = case.model()
    model.save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "tokenizer_config.json").write_text("{}")
    (tmp_path / "source" / "1_Pooling").mkdir()
    (tmp_path / "source" / "1_Pooling" / "config.json").write_text("{}")
    original = load(str(tmp_path / "source"))
    texts = samples_of(case.inputs(batch=12, padding=5), name="texts")
    train, held_out = hold_out(texts, seed=0)
    outcome = finetune(original, train, held_out, tmp_path / "out", FEW)
    assert outcome.after[0].metric == "embedding"
    assert outcome.kept.metric == "embedding" and 0.9 < outcome.kept.accuracy < 1
    assert (tmp_path / "out" / "tokenizer_config.json").is_file()
    assert (tmp_path / "out" / "1_Pooling" / "config.json").is_file()
    assert isinstance(BertModel.from_pretrained(tmp_path / "out"), BertModel)


@pytest.mark.parametrize("stop", [("before", 0.5), ("training", 0.5), ("after", 0.5)])
def test_a_stopped_run_goes_on_and_ends_with_the_same_weights(loaded, tmp_path, stop):
    whole = finetune(loaded, images(), images(4, seed=1), tmp_path / "whole", FEW)
    first, second = Stop(*stop), Stop("never", 1)
    with pytest.raises(KeyboardInterrupt):
        finetune(loaded, images(), images(4, seed=1), tmp_path / "out", FEW, tell=first)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".checkpoint"]
    again = finetune(loaded, images(), images(4, seed=1), tmp_path / "out", FEW, tell=second)

    assert first.steps + second.steps == [1, 2, 3, 4, 5, 6]
    assert again.fingerprint == whole.fingerprint
    assert again.before == whole.before and again.after == whole.after
    assert not (tmp_path / "out" / ".checkpoint").exists()


def test_a_stopped_run_refuses_other_arguments(loaded, tmp_path):
    out, data = tmp_path / "out", (images(), images(4, seed=1))
    with pytest.raises(KeyboardInterrupt):
        finetune(loaded, *data, out, FEW, tell=Stop("training", 0.5))
    other = Settings(**{**vars_of(FEW), "seed": 3, "batch": 2})
    with pytest.raises(ConfigError, match=r"unfinished training with --batch 4, not 2, --seed 0"):
        finetune(loaded, *data, out, other)
    with pytest.raises(ConfigError, match="DATA"):
        finetune(loaded, images(seed=5), images(4, seed=1), out, FEW)
    steps = Stop("never", 1)
    finetune(loaded, *data, out, other, force=True, tell=steps)
    assert steps.steps[0] == 1


def test_a_budget_ends_a_training(loaded, tmp_path):
    settings = Settings(plans=PLANS, budget_s=0.6, batch=2)
    rates = []
    outcome = finetune(
        loaded,
        images(),
        images(2, seed=1),
        tmp_path / "out",
        settings,
        tell=lambda progress: rates.append(progress.step.rate) if progress.step else None,
    )
    assert outcome.steps > 3 and outcome.seconds >= 0.6
    assert max(rates) > 5 * rates[-1] and rates[0] < max(rates)


def test_a_half_precision_source_is_saved_in_float32(source, tmp_path):
    half = tmp_path / "half"
    load(str(source), "float16").model.save_pretrained(half)
    finetune(load(str(half)), images(), images(2), tmp_path / "out", FEW)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert load(str(tmp_path / "out")).model.dtype == torch.float32


@pytest.mark.parametrize("count", [2, 9, 40])
def test_held_out_samples_never_train(count):
    labels = torch.arange(count)
    train, held_out = hold_out(images(count, labels=labels), seed=3)
    assert len(held_out) == max(1, round(count / 10)) and len(train) + len(held_out) == count
    assert sorted(train.labels.tolist() + held_out.labels.tolist()) == labels.tolist()
    assert train.digest != held_out.digest
    assert (train.name, held_out.name) == ("images 0", "images 0, held out")
    row = held_out.labels[0].item()
    assert torch.equal(held_out.batch([0])["pixel_values"][0], pixels(count)[row])
    with pytest.raises(RequestError, match="--eval-data"):
        hold_out(images(1), seed=0)


def test_small_models_take_larger_steps(loaded):
    assert Settings().rate_for(loaded.model) == 1e-4
    assert Settings().rate_for(torch.nn.Linear(10_000, 10_000)) == 5e-5
    assert Settings(learning_rate=0.1).rate_for(loaded.model) == 0.1


def test_logs_go_to_tensorboard(loaded, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = Settings(**{**vars_of(FEW), "tensorboard": tmp_path / "log"})
    finetune(loaded, images(), images(2), tmp_path / "out", settings)
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [each.step for each in events.Scalars("loss/smallest")] == [1, 2, 3, 4, 5, 6]
    assert [each.step for each in events.Scalars(f"drop/{PLANS[0]}")] == [0, 6]
