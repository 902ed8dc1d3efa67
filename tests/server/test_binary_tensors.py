import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.server.binary_tensors import NUMPY_TYPES, read_binary, to_binary
from prism.server.errors import BadRequest

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@given(datatype=st.sampled_from(sorted(NUMPY_TYPES)), shape=SHAPES, seed=st.integers(0, 2**31))
def test_numbers_survive_the_way_there_and_back(datatype, shape, seed):
    dtype = NUMPY_TYPES[datatype]
    raw = np.random.default_rng(seed).bytes(int(np.prod(shape)) * dtype.itemsize)
    if datatype == "BOOL":
        raw = bytes(each & 1 for each in raw)
    array = read_binary("x", datatype, shape, memoryview(raw))
    assert array.shape == tuple(shape)
    assert array.flags.writeable
    assert to_binary(array) == raw


@given(words=st.lists(st.binary(max_size=20), min_size=1, max_size=9))
def test_strings_survive_the_way_there_and_back(words):
    array = np.empty(len(words), dtype=object)
    array[:] = words
    found = read_binary("x", "BYTES", [len(words), 1], memoryview(to_binary(array)))
    assert found.shape == (len(words), 1)
    assert list(found[:, 0]) == words


@given(words=st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=4), data=st.data())
def test_strings_that_are_cut_short_are_refused(words, data):
    array = np.empty(len(words), dtype=object)
    array[:] = words
    raw = to_binary(array)
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(BadRequest):
        read_binary("x", "BYTES", [len(words)], memoryview(raw[:cut]))


@pytest.mark.parametrize(
    ("datatype", "raw", "said"),
    [
        ("FP32", bytes(7), "7 bytes; FP32 of shape .2. are 8"),
        ("BOOL", b"\x00\x02", "bytes are 0 or 1"),
        ("BYTES", b"\x09\x00\x00\x00ab", "has 9 bytes, and 2 came"),
        ("BYTES", b"\x00\x00\x00\x00" * 3, "more than the 2 elements"),
    ],
)
def test_other_bytes_than_the_shape_says_are_refused(datatype, raw, said):
    with pytest.raises(BadRequest, match=said):
        read_binary("x", datatype, [2], memoryview(raw))
