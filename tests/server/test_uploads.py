"""Images from anybody: what is one is decoded, what only claims to be one is not."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prism.server import uploads
from prism.server.errors import BadRequest, Refusal, TooLarge
from prism.server.uploads import decode_base64, read_image

COLOURS = np.random.default_rng(3).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def file_of(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width, height):
    """A PNG of a few bytes whose header says that it has this size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", uploads.FORMATS)
def test_every_format_is_read(form):
    image = read_image(file_of(Image.fromarray(COLOURS), form))
    assert image.size == (20, 12)
    if form in ("PNG", "BMP"):
        assert np.array_equal(np.array(image), COLOURS)


def test_the_first_image_of_an_animation_counts():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    made = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(made).convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_an_image_is_turned_as_its_camera_said():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image = read_image(file_of(Image.fromarray(COLOURS), "PNG", exif=exif))
    assert np.array_equal(np.array(image), np.rot90(COLOURS, -1))


def test_grey_of_16_bits_keeps_its_steps():
    steps = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    image = read_image(file_of(Image.fromarray(steps)))
    assert np.array(image.convert("RGB"))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("size", [(8000, 8000), (12000, 8000), (30000, 30000)])
def test_a_bomb_is_refused_by_what_it_claims(size):
    with pytest.raises(TooLarge, match="pixels; at most 40 million"):
        read_image(png_claiming(*size))


def test_an_image_that_a_processor_would_blow_up_is_refused():
    """1 x 200,000 pixels are little, until the shorter side is brought to 256."""
    with pytest.raises(BadRequest, match="longer side"):
        read_image(png_claiming(200_000, 1))


def test_a_file_too_long_is_refused_unopened():
    with pytest.raises(TooLarge, match="at most 20 MiB"):
        read_image(bytes(uploads.MOST_BYTES + 1))
    with pytest.raises(TooLarge, match="20 MiB"):
        decode_base64("A" * (2 * uploads.MOST_BYTES + 1))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        file_of(Image.fromarray(COLOURS), "TIFF"),
        file_of(Image.fromarray(COLOURS), "ICO"),
    ],
)
def test_what_is_no_image_or_of_another_format_is_refused(content):
    with pytest.raises(BadRequest, match="send a PNG, JPEG, WebP, BMP or GIF"):
        read_image(content)


@pytest.mark.parametrize("form", uploads.FORMATS)
def test_an_image_cut_off_is_refused_or_read(form):
    """A GIF may be cut off behind its first image."""
    whole = file_of(Image.fromarray(COLOURS), form)
    for length in range(0, len(whole), 7):
        try:
            read_image(whole[:length])
        except Refusal as error:
            assert error.status == 400


@given(st.sampled_from(uploads.FORMATS), st.data())
def test_a_broken_image_is_refused_or_read(form, data):
    broken = bytearray(file_of(Image.fromarray(COLOURS), form))
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = read_image(bytes(broken))
    except Refusal as error:
        assert error.status in (400, 413) and error.message
    else:
        assert image.width * image.height <= uploads.MOST_PIXELS


@given(st.binary(max_size=200))
def test_base64_is_read_with_line_breaks(content):
    assert decode_base64(base64.encodebytes(content).decode()) == content


@pytest.mark.parametrize("text", ["data:image/png;base64,AAAA", "http://a/b.png", "é", "A"])
def test_what_is_not_base64_is_refused(text):
    with pytest.raises(BadRequest, match="never opened"):
        decode_base64(text)


def test_a_path_of_base64_letters_is_only_bytes():
    assert decode_base64("/etc") == base64.b64decode("/etc")
