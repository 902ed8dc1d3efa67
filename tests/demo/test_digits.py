"""What the package ships for digits: the images, the weights, and a table that is true of them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from studies.digits_base import predict
from tests.processors import ViTProcessor

from prism.demo import digits
from prism.errors import ConfigError
from prism.fidelity.accuracy import FILE_NAME
from prism.models.held_out import HELD_OUT_FILE
from prism.models.load import load
from prism.plan import Plan


def accuracy_table():
    return json.loads((digits.model_path() / FILE_NAME).read_text())


@pytest.fixture(scope="module")
def shipped():
    return load("digits")


@pytest.fixture(scope="module")
def pixels(shipped):
    return shipped.info.normalisation.apply(torch.from_numpy(digits.held_out()[0]))


def test_held_out_images_are_a_fixed_stratified_part_that_never_trains():
    images, labels = digits.held_out()
    others, other_labels = digits.training()

    assert images.shape == (400, 1, 64, 64) and images.dtype == np.uint8
    assert images.min() == 0 and images.max() == 255
    assert np.bincount(labels).tolist() == [digits.HELD_OUT_PER_DIGIT] * 10
    assert len(images) + len(others) == 1797
    assert len(labels) == len(images) and len(other_labels) == len(others)
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in others}
    assert np.array_equal(digits.held_out()[0], images)


def test_labels_belong_to_their_images():
    source = load_digits()
    images, labels = digits.held_out()
    # The middle of every 8x8 cell lies closest to the pixel it was enlarged from.
    middles = images.reshape(-1, 8, 8, 8, 8)[:, :, 3:5, :, 3:5].mean(axis=(2, 4)) * (16 / 255)
    distance = torch.cdist(
        torch.from_numpy(middles.reshape(-1, 64)), torch.from_numpy(source.data), p=2
    )
    assert np.array_equal(source.target[distance.argmin(1)], labels)


def test_the_packed_images_are_the_ones_the_split_draws():
    ink, labels = digits.dataset()
    chosen = digits.held_out_rows(labels)
    with np.load(digits.model_path() / HELD_OUT_FILE) as packed:
        assert np.array_equal(packed["images"], ink[chosen])
        assert np.array_equal(packed["labels"], labels[chosen])


def test_without_scikit_learn_there_is_a_demo_but_no_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert len(digits.held_out()[0]) == 400
    with pytest.raises(ConfigError, match="pip install scikit-learn"):
        digits.training()


def test_looking_for_the_model_does_not_import_torch():
    code = (
        "import sys; from prism.demo import digits; digits.model_path(); "
        "sys.exit(bool({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_weights_are_small_and_the_ones_that_were_measured(shipped):
    assert (digits.model_path() / "model.safetensors").stat().st_size <= 3_000_000
    assert shipped.fingerprint == accuracy_table()["model_hash"]
    assert shipped.info.config.id2label == {i: str(i) for i in range(10)}


@pytest.mark.parametrize("text", ["local", "seq:2:C4", "seq:4:L10:lag1:f16"])
def test_the_table_is_reproduced_on_every_held_out_image(shipped, pixels, text):
    row = accuracy_table()["plans"][text]
    seen = predict(shipped.model, pixels, Plan.parse(text))
    correct = int((seen == torch.from_numpy(digits.held_out()[1])).sum())
    assert (correct, len(seen)) == (row["correct"], row["count"])


def test_every_row_follows_from_its_counts():
    plans = accuracy_table()["plans"]
    local = plans["local"]
    for text, row in plans.items():
        assert str(Plan.parse(text)) == text
        assert row["count"] == 400
        assert row["accuracy"] == pytest.approx(row["correct"] / row["count"], abs=6e-5)
        assert row["drop"] == pytest.approx(local["accuracy"] - row["accuracy"], abs=2e-4)
        assert row["drop_low"] <= row["drop"] <= row["drop_high"]
        # Plans that disagree on n images cannot differ by more than n correct answers.
        assert abs(row["drop"]) <= 1 - row["agreement"] + 2e-4
        if Plan.parse(text).exact:
            assert row["agreement"] == 1.0


def test_one_checkpoint_serves_every_plan_with_clusters():
    plans = accuracy_table()["plans"]
    assert plans["local"]["accuracy"] >= 0.975
    for nodes in (2, 3, 4):
        for lag in ("", ":lag1"):
            assert plans[f"seq:{nodes}:C10{lag}:f16"]["drop"] <= 0.005


def test_the_image_processor_takes_a_grey_image_to_what_the_model_was_trained_on(shipped, pixels):
    processor = ViTProcessor.from_pretrained(digits.model_path())
    grey = np.atleast_3d(np.array(Image.fromarray(digits.held_out()[0][0, 0])))
    made = processor(grey, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    torch.testing.assert_close(made, pixels[:1])
