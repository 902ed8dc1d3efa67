import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.server.binary_tensors import DATATYPES
from prism.server.errors import BadRequest
from prism.server.json_tensors import read_json, to_json

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("FP32", [1.5, -2, 0, 4.25]),
        ("FP16", [[1.5, -2], [0, 4.25]]),
        ("INT64", [2**62, -1, 0, 1]),
        ("INT32", [[1, 2], [3, 4]]),
        ("UINT8", [0, 255, 1, 2]),
        ("BOOL", [True, False, True, True]),
        ("BYTES", [["a", "é"], ["", "d"]]),
    ],
)
def test_flat_and_nested_lists_are_read_in_order(datatype, data):
    array = read_json("x", datatype, [2, 2], data)
    assert array.shape == (2, 2)
    flat = [each for row in data for each in row] if isinstance(data[0], list) else data
    assert to_json(array) == flat


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("INT64", [1.5, 2], "whole numbers"),
        ("INT64", [2**70, 2], "whole numbers"),
        ("UINT8", [256, 0], "from 0 to 255"),
        ("FP16", [70000, 0], "up to 65504"),
        ("BOOL", [1, 0], "true or false"),
        ("FP32", [True, False], "numbers"),
        ("FP32", [None, 1], "numbers"),
        ("FP32", [[1], [2, 3]], "nested"),
        ("FP32", [1, 2, 3], "3 elements"),
        ("FP32", [[1, 2]], r"nested as \[1, 2\]"),
        ("FP32", {"a": 1}, "must be a list"),
        ("BYTES", ["a", 1], "strings"),
    ],
)
def test_other_values_than_the_datatype_has_are_refused(datatype, data, said):
    with pytest.raises(BadRequest, match=said):
        read_json("x", datatype, [2], data)


@given(datatype=st.sampled_from(DATATYPES), data=ANYTHING, shape=st.lists(st.integers(0, 4)))
def test_anything_is_read_or_refused(datatype, data, shape):
    try:
        array = read_json("x", datatype, shape, data)
    except BadRequest:
        return
    assert array.shape == tuple(shape)


def test_what_json_has_no_number_for_becomes_null():
    values = np.array([1.0, np.nan, np.inf], dtype=np.float32)
    assert json.dumps(to_json(values), allow_nan=False) == "[1.0, null, null]"
