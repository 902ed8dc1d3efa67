"""The training recipe: gradients through plans, its sources of chance, its statistics."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from studies.train_digits import (
    PHASES,
    Training,
    any_plan,
    augment,
    main,
    one_of_each_four,
    train_step,
)
from transformers import ViTConfig, ViTForImageClassification

from prism.fidelity.accuracy import wilson_interval
from prism.models.virtual import virtual
from prism.plan import Plan

PLANS = ["local", "seq:2:L2", "seq:3:L1:lag1", "seq:2:L3:lag1:f16", "seq:2:L2:shares=3/1"]


@pytest.fixture
def tiny():
    torch.manual_seed(1)
    config = ViTConfig(
        image_size=16,
        patch_size=4,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=4,
    )
    return ViTForImageClassification(config)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(8, 1, 16, 16, generator=generator), torch.arange(8) % 4


def gradients(model, batch, text):
    model.zero_grad()
    with virtual(model, Plan.parse(text)):
        model(pixel_values=batch[0], labels=batch[1]).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("text", PLANS)
def test_gradients_reach_every_parameter(tiny, batch, text):
    for name, gradient in gradients(tiny, batch, text).items():
        # One bias on all keys shifts all logits of a query alike: softmax does not see it.
        if not name.endswith(("key.bias", "k_proj.bias")):
            assert gradient.abs().max() > 1e-6, name


@pytest.mark.parametrize("text", ["seq:2:full", "seq:3:L17:shares=1/2/3"])
def test_gradients_of_an_exact_exchange_are_those_of_the_plain_model(tiny, batch, text):
    plain = gradients(tiny, batch, "local")
    for name, gradient in gradients(tiny, batch, text).items():
        torch.testing.assert_close(gradient, plain[name], atol=1e-5, rtol=1e-4, msg=name)


def test_gradients_flow_through_the_means_themselves(tiny, batch):
    pixels = batch[0].clone().requires_grad_()
    with virtual(tiny, Plan.parse("seq:2:L1:lag1")):
        tiny(pixel_values=pixels).logits.sum().backward()
    # The head node's partition, with the class token, is the upper half of the image; the lower
    # half can only be felt through its means.
    assert pixels.grad[:, :, 12:].abs().max() > 0


def test_steps_with_random_plans_lower_the_loss_of_every_plan(tiny, batch):
    def losses():
        with torch.no_grad():
            found = []
            for text in PLANS:
                with virtual(tiny, Plan.parse(text)):
                    found.append(tiny(pixel_values=batch[0], labels=batch[1]).loss.item())
            return found

    before = losses()
    optimizer = torch.optim.AdamW(tiny.parameters(), lr=3e-3)
    rng = random.Random(3)
    for _ in range(60):
        train_step(tiny, optimizer, *batch, any_plan(rng))
    assert all(after < 0.7 * start for after, start in zip(losses(), before, strict=True))


def test_random_plans_cover_local_lag_and_unequal_shares():
    rng = random.Random(4)
    plans = [any_plan(rng) for _ in range(300)]
    assert {plan.strategy for plan in plans} == {"local", "sequence"}
    assert {plan.size for plan in plans} == {1, 2, 3, 4}
    assert {plan.lag for plan in plans} == {0, 1}
    assert any(len(set(plan.shares)) > 1 for plan in plans)


@given(st.integers(0, 2**32))
def test_sparse_training_sees_one_patch_of_each_four(seed):
    kept = one_of_each_four(random.Random(seed)).tolist()
    cells = {((patch - 1) // 16 // 2, (patch - 1) % 16 // 2) for patch in kept[1:]}
    assert kept[0] == 0 and len(kept) == 65
    assert cells == {(row, column) for row in range(8) for column in range(8)}


def test_augmentation_moves_an_image_only_a_little():
    dot = torch.full((16, 1, 64, 64), -1.0)
    dot[:, :, 30:34, 30:34] = 1.0
    moved = augment(dot, torch.Generator().manual_seed(5))
    assert moved.shape == dot.shape and moved.min() >= -1 and moved.max() <= 1
    brightest = moved.flatten(1).argmax(1)
    offset = torch.stack([brightest // 64, brightest % 64]) - 31.5
    assert not torch.equal(moved[0], moved[1])
    assert 1 < offset.abs().max() <= 8


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_the_one_of_scipy(numbers):
    correct, count = numbers
    expected = binomtest(correct, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_one_seed_gives_one_run():
    def losses():
        training = Training(seed=6)
        optimizer = torch.optim.AdamW(training.model.parameters(), lr=1e-3)
        return [training._step(phase, optimizer, torch.arange(4)) for phase in PHASES]

    assert losses() == losses()


def test_validation_images_do_not_train():
    training = Training(seed=7)
    trained = {image.numpy().tobytes() for image in training.pixels}
    assert not trained & {image.numpy().tobytes() for image in training.validation[0]}


@pytest.mark.parametrize("arguments", [["--epochs", "5"], ["--out", "x", "--epochs", "2"]])
def test_bad_arguments_are_refused_before_any_work(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert "--out" in capsys.readouterr().err
