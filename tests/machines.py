"""What the tests of real nodes share: a model small enough to load in no time, and patience."""

import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from transformers import ViTConfig, ViTForImageClassification

from prism.control import keys


def tiny_vit(seed=0, blocks=4):
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=5,
    )
    return ViTForImageClassification(config).eval()


def pixels(batch, seed=0):
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def alone(model, **inputs):
    with torch.inference_mode():
        return model(**inputs)


def close(a, b):
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


def until(condition, timeout_s=20.0):
    """Wait for something that happens in another process; return whether it did."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


def exists(pid):
    """Whether a process runs; one that ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def node_command(name, coordinator, secret, *more):
    return [
        *(sys.executable, "-m", "prism", "node", "--name", name, "--device", "cpu"),
        *("--threads", "1", "--coordinator", coordinator, "--secret", str(secret)),
        *more,
    ]


def start_node(log, *arguments):
    """Start a node by hand, as on a real device; its output goes to `log`."""
    with Path(log).open("wb") as output:
        return subprocess.Popen(
            node_command(*arguments), stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ)
        )


def secret_at(path):
    keys.save(keys.generate(), path)
    return path
