"""The training of the digits model: its sources of chance, its split, what it is tuned for."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studies.digits_base import PHASES, Training, one_of_each_four, split
from studies.train_digits import main, samples_of, table_plans, trained_plans

from prism.demo import digits
from prism.errors import ModelError


def test_the_weights_are_tuned_for_both_groupings_on_two_to_four_nodes():
    plans = trained_plans()
    assert {plan.size for plan in plans} == {2, 3, 4}
    assert {plan.lag for plan in plans} == {0, 1}
    assert {plan.grouping for plan in plans} == {"segments", "clusters"}
    assert {plan.wire for plan in plans} == {"float16"}
    assert len(set(table_plans())) == len(table_plans()) and set(plans) < set(table_plans())


@given(st.integers(0, 2**32))
def test_sparse_training_sees_one_patch_of_each_four(seed):
    kept = one_of_each_four(random.Random(seed)).tolist()
    cells = {((patch - 1) // 16 // 2, (patch - 1) % 16 // 2) for patch in kept[1:]}
    assert kept[0] == 0 and len(kept) == 65
    assert cells == {(row, column) for row in range(8) for column in range(8)}


def test_one_seed_gives_one_run():
    def losses():
        training = Training(seed=6)
        optimizer = torch.optim.AdamW(training.model.parameters(), lr=1e-3)
        return [training.step(phase, optimizer, torch.arange(4)) for phase in PHASES]

    assert losses() == losses()


def test_neither_validation_nor_held_out_images_train():
    images, labels, (validation, validated) = split(seed=7)
    assert len(images) == len(labels) and len(validation) == len(validated) == 100
    trained = {image.numpy().tobytes() for image in images}
    assert not trained & {image.numpy().tobytes() for image in validation}
    assert not trained & {image.tobytes() for image in digits.held_out()[0]}


def test_images_keep_their_digits_as_samples():
    images, labels, _ = split(seed=8)
    samples = samples_of("some", images[:9], labels[:9])
    assert len(samples) == 9 and torch.equal(samples.labels, labels[:9])
    assert torch.equal(samples.batch([4, 1])["pixel_values"], images[[4, 1]])


@pytest.mark.parametrize("arguments", [["--epochs", "5"], ["--out", "x", "--epochs", "1"]])
def test_bad_arguments_are_refused_before_any_work(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert "--out" in capsys.readouterr().err


def test_a_plain_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match="absent does not exist"):
        main(["--out", str(tmp_path), "--base", str(tmp_path / "absent"), "--threads", "1"])
