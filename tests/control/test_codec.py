import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_outputs import BaseModelOutput

from prism.control import codec as tensors
from prism.control import messages as control
from prism.errors import ClusterError, RequestError

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPES = st.lists(st.integers(0, 4), max_size=3)


@st.composite
def integer_tensors(draw):
    dtype, shape = draw(st.sampled_from(INTEGERS)), draw(SHAPES)
    limits = torch.iinfo(dtype)
    bits = draw(st.sampled_from((1, 7, 8, 15, 16, 31, 32, 63)))
    low, high = max(limits.min, -(2**bits)), min(limits.max, 2**bits - 1)
    count = math.prod(shape)
    values = draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
    return torch.tensor(values, dtype=dtype).reshape(shape)


@st.composite
def other_tensors(draw):
    dtype, shape = draw(st.sampled_from((torch.bool, *FLOATS))), draw(SHAPES)
    count = math.prod(shape)
    values = draw(st.lists(st.floats(width=16), min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.float64).reshape(shape).to(dtype)


TENSORS = integer_tensors() | other_tensors()
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
TREES = st.recursive(
    TENSORS | VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
        | TENSORS.map(lambda x: BaseModelOutput(last_hidden_state=x, hidden_states=(x, x)))
    ),
    max_leaves=6,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        # Bytes, so that NaNs and signed zeros count.
        alike = (a.dtype, a.shape) == (b.dtype, b.shape)
        return alike and a.contiguous().numpy(force=True).tobytes() == b.numpy().tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def bfloat16_as_bits(tree):
    """numpy has no bfloat16."""
    if isinstance(tree, torch.Tensor):
        return tree.view(torch.int16) if tree.dtype == torch.bfloat16 else tree
    if isinstance(tree, BaseModelOutput):
        return type(tree)(**{key: bfloat16_as_bits(value) for key, value in tree.items()})
    if isinstance(tree, dict):
        return {key: bfloat16_as_bits(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(bfloat16_as_bits(value) for value in tree)
    return tree


def over_the_wire(tree):
    description, frames = tensors.pack(tree)
    run = control.Run(request=1, model=1, plan="local", length=1, inputs=description, timeout_s=1.0)
    first, *raw = control.encode(run, frames)
    message, rest = control.decode([first, *map(bytes, raw)])
    return tensors.unpack(message.inputs, rest)


@given(TREES)
def test_what_is_packed_arrives_unchanged(tree):
    assert same(bfloat16_as_bits(tree), bfloat16_as_bits(over_the_wire(tree)))


@given(TENSORS)
def test_transposed_tensors_arrive_in_order(tensor):
    turned = tensor.permute(tuple(reversed(range(tensor.dim()))))
    assert same(bfloat16_as_bits(turned), bfloat16_as_bits(over_the_wire(turned)))


@given(integer_tensors())
def test_integers_travel_in_the_narrowest_dtype_that_holds_them(tensor):
    _, (frame,) = tensors.pack(tensor)
    if not tensor.numel():
        assert frame.nbytes == 0
        return
    low, high = int(tensor.min()), int(tensor.max())
    fits = [
        dtype.itemsize
        for dtype in (torch.uint8, torch.int16, torch.int32, tensor.dtype)
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max
    ]
    assert frame.nbytes == tensor.numel() * min(fits)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({1: 2}, "1"),
        (object(), "object"),
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.zeros(2, dtype=torch.uint16), "uint16"),
        (torch.eye(2).to_sparse(), "sparse"),
        ([b"bytes"], "bytes"),
    ],
)
def test_what_cannot_travel_is_refused_by_name(value, named):
    with pytest.raises(RequestError, match=named):
        tensors.pack(value)


@pytest.mark.parametrize(
    "description",
    [
        None,
        [],
        5,
        ["value"],
        ["value", 1, 2],
        ["pickle", "x"],
        ["float", "seven"],
        ["tensor", 0, "float32", "float32"],
        ["tensor", 0, "float32", "float32", [3]],
        ["tensor", 0, "float32", "float32", [-1, -2]],
        ["tensor", 0, "float32", "float32", "2"],
        ["tensor", 0, "object", "float32", [2]],
        ["tensor", 1, "float32", "float32", [2]],
        ["tensor", "0", "float32", "float32", [2]],
        ["list", 7],
        ["dict", ["a"]],
        ["output", {}, "transformers.modeling_outputs"],
        ["output", {"nonsense": ["value", 1]}, "transformers.modeling_outputs", "BaseModelOutput"],
        ["output", {}, "transformers.no_such_module", "BaseModelOutput"],
        ["output", {}, "transformers.modeling_outputs", "no_such_class"],
        ["output", {}, "transformers.modeling_utils", "PreTrainedModel"],
        ["output", {}, "subprocess", "Popen"],
        ["output", {}, "transformersx.y", "Z"],
        ["output", {}, 3, 4],
    ],
)
def test_malformed_descriptions_are_errors(description):
    with pytest.raises(ClusterError):
        tensors.unpack(description, [bytes(8)])


@pytest.mark.parametrize(
    "description",
    [
        ["image", 0],
        ["image", 0, None],
        ["image", 0, 3],
        ["image", 0, [1, 1, "8"]],
        ["image", 0, [1, 1, 8.0]],
        ["image", 0, [2, 2, 2]],
        ["image", 1, [1, 1, 8]],
        ["image", 0, [10**400, 1, 1]],
    ],
)
def test_malformed_images_are_errors(description):
    with pytest.raises(ClusterError):
        tensors.unpack(description, [bytes(8)])


def always(nbytes, ratio):
    return True


def test_images_are_compressed_where_it_pays_and_nothing_else_is():
    image = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 64, 1)
    tree = {
        "image": image,
        "mask": image[0, 0],
        "wide": image.long(),
        "real": image.float(),
        "part": (image.view(2, 12, 4, 4, -1), 7),
    }
    description, frames = tensors.pack(tree, always)
    raw_description, raw_frames = tensors.pack(tree)
    assert same(tensors.unpack(description, [bytes(frame) for frame in frames]), tree)
    kinds = {key: each[0] for key, each in description[1].items()}
    assert kinds == {
        "image": "image", "mask": "tensor", "wide": "tensor", "real": "tensor", "part": "tuple",
    }  # fmt: skip
    assert frames[0].nbytes < image.numel() / 20
    for key in ("mask", "wide", "real"):
        assert description[1][key] == raw_description[1][key]
    assert raw_description == tensors.pack(tree, lambda nbytes, ratio: False)[0]
    assert sum(frame.nbytes for frame in frames) < sum(frame.nbytes for frame in raw_frames)


def test_images_that_do_not_shrink_travel_as_they_are():
    noise = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    description, (frame,) = tensors.pack(noise, always)
    assert description[0] == "tensor" and frame.nbytes == noise.numel()


def test_classes_outside_transformers_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ClusterError, match="evil_module"):
        tensors.unpack(["output", {}, "evil_module", "Evil"], [])


@given(st.integers(0, 11))
def test_a_short_frame_is_an_error(length):
    description, _ = tensors.pack(torch.zeros(3))
    with pytest.raises(ClusterError, match=f"{length} bytes"):
        tensors.unpack(description, [bytes(length)])
