"""Images arrive as they were, in fewer bytes where there is something to save."""

import zlib
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism.control import lossless
from prism.errors import ClusterError

SHAPES = st.lists(st.integers(1, 20), min_size=3, max_size=5)


def always(nbytes, ratio):
    return True


def noise(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def waves(shape):
    """An image like a photo: smooth, with a little noise."""
    height, width = shape[-2:]
    grid = torch.sin(torch.arange(height)[:, None] / 9) + torch.cos(torch.arange(width) / 7)
    speckle = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return (128 + 50 * grid + speckle).to(torch.uint8)


def stripes(shape):
    """An image like a drawing: the same again and again."""
    return (torch.arange(shape[-1]) // 5 % 3 * 100).to(torch.uint8).expand(shape)


@given(shape=SHAPES, make=st.sampled_from([noise, waves, stripes]), turn=st.booleans())
def test_images_of_any_shape_arrive_as_they_were_and_never_in_more_bytes(shape, make, turn):
    image = make(shape).transpose(-1, 0) if turn else make(shape)
    compressed = lossless.compress(image, always)
    if compressed is not None:
        assert len(compressed) < image.numel()
        assert torch.equal(lossless.decompress(compressed, image.shape), image)


@given(st.binary(min_size=12, max_size=300))
def test_values_of_any_kind_arrive_as_they_were(values):
    image = torch.frombuffer(bytearray(values[: len(values) // 12 * 12]), dtype=torch.uint8)
    image = image.reshape(3, 2, -1).repeat(1, 4, 5)
    compressed = lossless.compress(image, always)
    if compressed is not None:
        assert torch.equal(lossless.decompress(compressed, image.shape), image)


@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (2, 98, 3, 16, 16)])
@pytest.mark.parametrize(("make", "most"), [(waves, 0.6), (stripes, 0.03)])
def test_the_sample_tells_what_is_left(shape, make, most):
    image, asked = make(shape), []
    compressed = lossless.compress(image, lambda *each: asked.append(each) is None)
    (nbytes, best), (_, forecast) = asked
    ratio = len(compressed) / image.numel()
    assert (nbytes, best) == (image.numel(), 0.0)
    assert ratio < most
    assert ratio - 0.02 < forecast < ratio + 0.1


def test_noise_is_known_by_its_sample_and_sent_as_it_is():
    asked = []

    def pays(nbytes, ratio):
        asked.append(ratio)
        return ratio < 0.95

    assert lossless.compress(noise((2, 3, 224, 224)), pays) is None
    assert asked[0] == 0.0 and asked[1] > 0.99
    assert lossless.compress(noise((1, 3, 32, 32)), always) is None


def test_where_nothing_could_pay_no_image_is_looked_at():
    asked = []
    assert lossless.compress(waves((1, 3, 64, 64)), lambda *each: bool(asked.append(each))) is None
    assert asked == [(3 * 64 * 64, 0.0)]
    assert lossless.compress(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), always) is None


SHAPE = (3, 32, 32)
GOOD = lossless.compress(waves(SHAPE), always)


@pytest.mark.parametrize(
    ("frame", "shape"),
    [
        (b"", SHAPE),
        (b"\xff" * 500, SHAPE),
        (GOOD[:-1], SHAPE),
        (GOOD[: len(GOOD) // 2], SHAPE),
        (GOOD + b"more", SHAPE),
        (zlib.compress(bytes(3072)), SHAPE),
        (GOOD, (3, 32, 31)),
        (GOOD, (3, 32, 33)),
        (GOOD, (3, 1024)),
        (GOOD, (3, -32, -32)),
        (GOOD, (0, 32, 32)),
        (GOOD, (3, 2**40, 2**40)),
        (GOOD, ()),
    ],
)
def test_a_frame_that_is_no_such_image_is_one_line(frame, shape):
    with pytest.raises(ClusterError) as caught:
        lossless.decompress(frame, shape)
    assert "\n" not in str(caught.value) and "compressed image" in str(caught.value)


def test_a_frame_that_grows_without_end_is_stopped_at_the_images_size():
    """A thousandfold bomb: it must not take a thousandfold memory."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = stream.compress(bytes(200_000_000)) + stream.flush()
    with pytest.raises(ClusterError, match=r"needs 3072 values"):
        lossless.decompress(bomb, SHAPE)


@given(frame=st.binary(max_size=200), shape=st.lists(st.integers(-2, 40), max_size=5))
def test_whatever_comes_is_an_image_of_the_shape_or_an_error(frame, shape):
    with suppress(ClusterError):
        assert list(lossless.decompress(frame, shape).shape) == shape


def test_a_machine_knows_how_fast_it_is():
    compress_s, decompress_s = lossless.times_per_byte_s()
    assert 0 < compress_s < 1e-4 and 0 < decompress_s < 1e-4
