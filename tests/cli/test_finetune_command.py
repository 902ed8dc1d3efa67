"""`prism finetune` as people use it: stopped, killed, gone on with, refused."""

import json
import os
import signal
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.cli.commands import call, spawn
from tests.families import BY_NAME
from tests.fidelity.models import saved, text
from tests.processors import ViTProcessor

from prism.cli.durations import read_seconds
from prism.errors import ConfigError
from prism.fidelity.accuracy import accuracy_of
from prism.models.load import load

PLANS = "seq:2:C2:f16,seq:2:L2:lag1:f16,seq:3:C1:f16"
STEPS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a small model of images, its data, and one of texts."""
    root = tmp_path_factory.mktemp("finetune")
    BY_NAME["ViTForImageClassification"].model(num_labels=4).save_pretrained(root / "model")
    ViTProcessor(size={"height": 16, "width": 16}).save_pretrained(root / "model")
    BY_NAME["BertModel"].model().save_pretrained(root / "texts")
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (30, 3, 16, 16), dtype=np.uint8)
    np.savez(root / "data.npz", pixel_values=pixels, labels=np.arange(30) % 4)
    np.savez(root / "ids.npz", input_ids=random.integers(4, 40, (8, 12)))
    return root


def arguments(place, out, *more):
    return (
        *("finetune", place / "model", place / "data.npz", "--out", out, "--plans", PLANS),
        *("--batch", 4, "--threads", 1, *more),
    )


@pytest.fixture(scope="module")
def whole(place):
    """The weights of a run that nothing stopped."""
    process = spawn(*arguments(place, place / "whole", "--steps", STEPS))
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    return load_file(place / "whole" / "model.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_goes_on_to_the_same_weights(
    place, whole, tmp_path, monkeypatch, capsys, number
):
    out, state = tmp_path / "out", tmp_path / "out" / ".checkpoint" / "state.pt"
    command = arguments(place, out, "--steps", STEPS, "--checkpoint-every", "0.01s")
    process = spawn(*command)
    deadline_s = time.monotonic() + 100
    while not state.exists() and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.005)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on from there" in said and "Traceback" not in said
    assert 0 < torch.load(state, weights_only=True)["steps_done"] < STEPS
    assert [path.name for path in out.iterdir()] == [".checkpoint"]

    refused = call(monkeypatch, capsys, *command, "--seed", 1)
    assert refused.code == 2 and "--seed 0, not 1" in refused.err
    done = call(monkeypatch, capsys, *command, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["steps"] == STEPS
    resumed = load_file(out / "model.safetensors")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert not (out / ".checkpoint").exists()


def test_the_summary_says_what_every_plan_was_worth(place, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    done = call(monkeypatch, capsys, *arguments(place, out, "--steps", 2, "--augment", "light"))
    assert done.code == 0 and "2 steps in" in done.out and "seq:3:C1:f16" in done.out
    assert "measuring the original" in done.err and "training, step 2" in done.err

    command = arguments(place, out, "--budget", "0.3s", "--force", "--json")
    done = call(monkeypatch, capsys, *command)
    document = json.loads(done.out)
    assert [row["plan"] for row in document["plans"]] == ["local", *PLANS.split(",")]
    assert document["metric"] == "accuracy" and document["samples"] == 3
    assert document["skipped"] == 0
    assert document["seconds"] >= 0.3
    assert document["kept"]["metric"] == "agreement" and 0 <= document["kept"]["drop"] <= 1
    table = accuracy_of(str(out), load(str(out)).fingerprint)
    for row, entry in zip(document["plans"], table, strict=True):
        assert row["after"]["drop"] == pytest.approx(entry.drop, abs=1e-6)
    assert json.loads((out / "accuracy.json").read_text())["command"].startswith("prism finetune")


def test_texts_are_distilled_without_labels(place, tmp_path, monkeypatch, capsys):
    command = ("finetune", place / "texts", place / "ids.npz", "--out", tmp_path / "out")
    done = call(monkeypatch, capsys, *command, "--steps", 2, "--threads", 1, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["metric"] == "embedding"
    assert any("lag1" in row["plan"] for row in document["plans"])


def test_what_was_tuned_is_evaluated_on_the_whole_data_without_force(
    place, tmp_path, monkeypatch, capsys
):
    saved(tmp_path / "bert", "BertForSequenceClassification")
    path = tmp_path / "reviews.csv"
    rows = [f"{text(3 + at % 5, at)},{'good' if at % 3 else 'bad'}" for at in range(20)]
    path.write_text("\n".join(["text,label", *rows, ",bad"]))
    out = tmp_path / "out"
    options = ("--plans", "seq:2:C1", "--steps", 1, "--threads", 1)
    done = call(monkeypatch, capsys, "finetune", tmp_path / "bert", path, "--out", out, *options)
    assert done.code == 0, done.err
    assert "1 files or rows skipped that cannot be used" in done.out
    table = json.loads((out / "accuracy.json").read_text())
    assert {row["dataset"] for row in table["plans"].values()} == {"reviews.csv, held out"}
    done = call(monkeypatch, capsys, "evaluate", out, path, "--plans", "seq:2:L1", "--threads", 1)
    assert done.code == 0, done.err
    table = json.loads((out / "accuracy.json").read_text())
    assert {plan: row["dataset"] for plan, row in table["plans"].items()} == {
        "local": "reviews.csv",
        "seq:2:C1": "reviews.csv, held out",
        "seq:2:L1": "reviews.csv",
    }
    unlabelled = call(
        *(monkeypatch, capsys, "finetune", tmp_path / "bert", path, "--out", tmp_path / "two"),
        *("--no-labels", "--json", *options),
    )
    assert json.loads(unlabelled.out)["metric"] == "agreement"


def test_models_without_default_plans_or_comparable_answers_are_refused(
    place, tmp_path, monkeypatch, capsys
):
    saved(tmp_path / "window", "Qwen2ForCausalLM-window")
    saved(tmp_path / "score", "BertForSequenceClassification", num_labels=1)
    out = tmp_path / "out"
    for name, message in (
        ("window", "has sliding-window layers"),
        ("score", "gives one number per sample"),
    ):
        command = ("finetune", tmp_path / name, place / "ids.npz", "--out", out, "--threads", 1)
        done = call(monkeypatch, capsys, *command)
        assert done.code == 2 and message in done.err
        assert not out.exists()


def test_half_precision_is_said_to_become_float32(place, tmp_path, monkeypatch, capsys):
    load(str(place / "model"), "bfloat16").model.save_pretrained(tmp_path / "half")
    ViTProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "half")
    command = ("finetune", tmp_path / "half", place / "data.npz", "--out", tmp_path / "out")
    done = call(monkeypatch, capsys, *command, "--plans", "seq:2:C2", "--steps", 1, "--threads", 1)
    assert "holds bfloat16 weights; they train in float32 and are saved so" in done.err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--steps", 0), "--steps must be at least 1"),
        (("--steps", 2, "--budget", "3m"), "give one of them"),
        (("--budget", "soon"), "--budget 'soon' is no time above 0"),
        (("--checkpoint-every", "0s"), "--checkpoint-every '0s'"),
        (("--plans", "seq:2:full"), "seq:2:full is exact"),
        (("--plans", "seq:2"), "lacks its means"),
        (("--plans", ","), "--plans names no plan"),
        (("--learning-rate", "-1"), "--learning-rate must be above 0"),
        (("--augment", "wild"), "--augment 'wild' is not known; use none or light"),
        (("--device", "abacus"), "--device abacus cannot be used"),
        (("--eval-data", "nowhere"), "nowhere does not exist"),
        (("--limit", 1), "none can be held out"),
    ],
)
def test_bad_arguments_are_one_sentence(place, tmp_path, monkeypatch, capsys, more, message):
    done = call(monkeypatch, capsys, *arguments(place, tmp_path / "out", *more))
    assert done.code == 2
    assert message in done.err and done.err.count("prism: ") == 1
    assert not (tmp_path / "out").exists()


def test_places_and_data_that_will_not_do_are_refused(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for out, message in (("file", "is a file"), ("full", "holds thesis.txt already")):
        done = call(monkeypatch, capsys, *arguments(place, tmp_path / out))
        assert done.code == 2 and message in done.err
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    out = ("--out", tmp_path / "out")
    done = call(monkeypatch, capsys, "finetune", "digits", "digits", *out)
    assert done.code == 2 and "never trained on" in done.err
    text = ("finetune", place / "texts", place / "ids.npz", *out, "--augment", "light")
    done = call(monkeypatch, capsys, *text)
    assert done.code == 2 and "reads input_ids; leave it out" in done.err


def test_times_are_read():
    assert [read_seconds("--budget", each) for each in ("90s", "20m", " 1.5h")] == [90, 1200, 5400]
    for wrong in ("", "5", "m", "-3s", "0m", "1e3s", "9999999s"):
        with pytest.raises(ConfigError, match="write 90s, 20m or 1.5h"):
            read_seconds("--budget", wrong)
