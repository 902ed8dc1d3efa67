"""The yardstick: a plain forward is the unmodified model's, and leaves the process as it was."""

import os

import pytest
import torch
from tests.machines import alone, pixels, tiny_vit

from prism.bench.plain import plain_forward


@pytest.fixture
def saved(tmp_path):
    threads = torch.get_num_threads()
    model = tiny_vit()
    model.save_pretrained(tmp_path)
    yield model, str(tmp_path)
    torch.set_num_threads(threads)


def test_it_answers_as_the_model_does_on_the_core_it_was_given(saved):
    model, source = saved
    cores, seen = os.sched_getaffinity(0), []
    forward = plain_forward(source, core=min(cores))
    assert torch.get_num_threads() == 1
    x = pixels(3)
    assert torch.allclose(
        forward({"pixel_values": x}).logits, alone(model, pixel_values=x).logits, atol=1e-6
    )
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda *_: seen.append(os.sched_getaffinity(0))
    )
    with hook:
        forward({"pixel_values": x})
    assert seen and all(each == {min(cores)} for each in seen)
    assert os.sched_getaffinity(0) == cores


def test_a_request_that_fails_leaves_the_process_its_cores(saved):
    cores = os.sched_getaffinity(0)
    forward = plain_forward(saved[1], core=min(cores))
    with pytest.raises((ValueError, RuntimeError), match="size"):
        forward({"pixel_values": torch.zeros(1, 3, 5, 5)})
    assert os.sched_getaffinity(0) == cores
