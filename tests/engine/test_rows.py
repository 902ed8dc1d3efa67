"""Rows cut for nodes and joined again are the batch, in every kind of output a model returns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_outputs import ImageClassifierOutput

from prism.engine.rows import join_rows, rows_of
from prism.errors import RequestError


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_rows_are_cut_and_joined_again(sizes):
    batch = sum(sizes)
    inputs = {
        "input_ids": torch.arange(2 * batch).reshape(batch, 2),
        "scale": torch.tensor(2.0),
        "flag": True,
    }
    stops = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    parts = [rows_of(inputs, stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]
    assert [len(part["input_ids"]) for part in parts] == sizes
    assert all(part["flag"] is True and part["scale"] == 2 for part in parts)
    outputs = [
        ImageClassifierOutput(logits=part["input_ids"], hidden_states=(part["input_ids"],))
        for part in parts
    ]
    joined = join_rows(outputs)
    assert isinstance(joined, ImageClassifierOutput)
    assert torch.equal(joined.logits, inputs["input_ids"])
    assert torch.equal(joined.hidden_states[0], inputs["input_ids"])


def test_an_output_without_rows_cannot_be_joined():
    with pytest.raises(RequestError, match="local"):
        join_rows([torch.tensor(1.0), torch.tensor(2.0)])
