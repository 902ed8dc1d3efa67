"""The benchmarks over a lab: what they compare, what they refuse, and one small run of each."""

import json

import pytest
import torch
from bench.lab import adaptive, forward, scale
from bench.lab.bound import Bound, own_positions, own_rows
from bench.lab.contenders import PARALLEL, PLAIN
from bench.lab.sized import sized
from tests.machines import alone, close, tiny_vit
from transformers import BertConfig, BertForSequenceClassification

from prism.errors import ConfigError
from prism.models.load import adopt, describe, load

TOKENS = 17  # of the tiny ViT


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def configured(tmp_path):
    """A MODEL argument of a tiny ViT with random weights."""
    config = tiny_vit().config
    config.architectures = ["ViTForImageClassification"]
    config.save_pretrained(tmp_path / "tiny")
    return f"random:{tmp_path / 'tiny'}"


def lengths_seen(model, forward, inputs):
    """Return how many positions the last block was given."""
    seen = []
    block = model.vit.layers[-1] if hasattr(model.vit, "layers") else model.vit.encoder.layer[-1]
    with block.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2])):
        forward(inputs)
    return [tuple(shape) for shape in seen]


def test_the_bound_of_positions_runs_the_largest_part_of_them_and_leaves_the_model_as_it_was():
    model = tiny_vit()
    loaded = adopt(model)
    x = torch.rand(4, 3, 32, 32)
    whole = alone(model, pixel_values=x).logits
    bound = Bound(2, of_positions=True)
    assert lengths_seen(model, bound.forward(loaded, 4, TOKENS), {"pixel_values": x}) == [(4, 9)]
    assert close(alone(model, pixel_values=x).logits, whole)
    everything = own_positions(loaded, TOKENS)({"pixel_values": x})
    assert close(everything.logits, whole)


def test_the_bound_of_rows_runs_the_largest_part_of_them():
    loaded = adopt(tiny_vit())
    x = torch.rand(5, 3, 32, 32)
    assert Bound(2, of_positions=False).forward(loaded, 5, TOKENS)(
        {"pixel_values": x}
    ).logits.shape == (3, 5)
    assert close(
        own_rows(loaded, 5)({"pixel_values": x}).logits, loaded.model(pixel_values=x).logits
    )


def test_the_bound_of_a_text_is_a_shorter_text():
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    loaded = adopt(BertForSequenceClassification(config))
    ids = torch.arange(20).reshape(2, 10)
    half = own_positions(loaded, 5)({"input_ids": ids}).logits
    assert close(half, alone(loaded.model, input_ids=ids[:, :5]).logits)


def test_a_model_is_given_another_number_of_tokens(configured, tmp_path):
    assert sized(configured, None, tmp_path) == configured
    assert sized(configured, TOKENS, tmp_path) == configured
    larger = sized(configured, 26, tmp_path)
    info = describe(larger)
    assert info.shape.max_length == 26
    assert info.config.image_size == 40 and info.normalisation is not None
    assert load(larger).model.config.hidden_size == 32
    with pytest.raises(ConfigError, match="17, 26"):
        sized(configured, 20, tmp_path)
    with pytest.raises(ConfigError, match="random:vit-base"):
        sized("digits", 26, tmp_path)
    assert sized("random:bert-base", 128, tmp_path) == "random:bert-base"
    with pytest.raises(ConfigError, match="1 to 512"):
        sized("random:bert-base", 513, tmp_path)


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        (forward, ["--rounds", "0"], "rounds"),
        (forward, ["--batch", "0"], "batch"),
        (forward, ["--plans", "seq:3:full"], "--nodes"),
        (forward, ["--plans", "quick"], "a plan is"),
        (scale, ["--cpu", "400"], "together at most"),
        (scale, ["--cpu", ""], "together at most"),
        (adaptive, ["--steps", "0"], "steps"),
        (adaptive, ["--budget", "long"], "90s"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_started(program, arguments, said, capsys):
    assert program.main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.timeout(300)  # four processes import torch
def test_a_comparison_over_a_lab(rights, nothing_left, configured, capfd):
    words = ["--model", configured, "--batch", "1", "2", "--rounds", "1", "--rate", "500mbit"]
    assert forward.main([*words, "--plans", "batch:2", "seq:2:C4:f16"]) == 0
    out = capfd.readouterr().out
    figures = json.loads(out.strip().splitlines()[-1])
    assert figures["link"] == "500mbit,3ms,switched" and figures["carried_by"]
    named = {(row["batch"], row["contender"]): row for row in figures["rows"]}
    single = {PLAIN, "local", "seq:2:C4:f16", "bound: 1/2 of positions"}
    assert {name for batch, name in named if batch == 1} == single
    assert {name for batch, name in named if batch == 2} == {
        *single,
        *("batch:2", PARALLEL, "bound: 1/2 of rows"),
    }
    for row in named.values():
        low, middle, high = row["total_ms"]
        assert 0 < low <= middle <= high
        assert (row["of_bound"] is None) == (row["bound"] is None)
        assert row["outcomes"] in ([], ["ok"])
    assert named[2, "batch:2"]["bound"] == named[2, PARALLEL]["bound"] == "bound: 1/2 of rows"
    assert named[1, "seq:2:C4:f16"]["helpers_ms"].keys() == {"board2"}
