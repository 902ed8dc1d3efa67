"""Images are compressed only where that is faster, with something to spare."""

from hypothesis import given
from hypothesis import strategies as st

from prism.planner import ImageCoding
from prism.record import LinkState

PHOTO_BYTES = 3 * 224 * 224
RATIO = 0.5


def coding(mbps, per_byte_s=7e-9):
    return ImageCoding(LinkState(mbps * 1e6, 0.003), per_byte_s, per_byte_s)


def test_a_photo_is_compressed_on_a_slow_link_and_not_on_a_fast_one():
    assert [coding(mbps).pays(PHOTO_BYTES, RATIO) for mbps in (5, 20, 100, 500, 10_000)] == [
        *(True, True, True),
        *(False, False),
    ]
    # A processor ten times as slow needs a slower link.
    assert coding(5, 7e-8).pays(PHOTO_BYTES, RATIO)
    assert not coding(100, 7e-8).pays(PHOTO_BYTES, RATIO)


def test_what_does_not_shrink_or_is_small_is_left_alone():
    assert not coding(1).pays(PHOTO_BYTES, 1.0)
    assert not coding(20).pays(2_000, RATIO)


@given(
    mbps=st.floats(0.1, 1e5),
    compress_s=st.floats(0, 1e-6),
    decompress_s=st.floats(0, 1e-6),
    nbytes=st.integers(1, 10**8),
    ratio=st.floats(0, 1),
)
def test_the_link_is_spared_more_than_both_ends_work(mbps, compress_s, decompress_s, nbytes, ratio):
    each = ImageCoding(LinkState(mbps * 1e6, 0.003), compress_s, decompress_s)
    if each.pays(nbytes, ratio):
        raw_s = 8 * nbytes / (mbps * 1e6)
        assert raw_s * ratio + nbytes * (compress_s + decompress_s) < raw_s
        assert each.pays(2 * nbytes, ratio) and each.pays(nbytes, ratio / 2)
        slower = ImageCoding(LinkState(mbps * 1e5, 0.003), compress_s, decompress_s)
        assert slower.pays(nbytes, ratio)
