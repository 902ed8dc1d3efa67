"""Payloads into frames and back, on the CPU and, where there is one, on a GPU."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism.errors import ConfigError
from prism.transport.staging import WIRE_DTYPES, Staging

shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4)
wires = st.sampled_from(sorted(WIRE_DTYPES))
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@given(
    shape=shapes,
    wire=wires,
    header_bytes=st.sampled_from((0, 8, 16)),
    seed=st.integers(0, 99),
    source=st.sampled_from((torch.float32, torch.float16, torch.bfloat16)),
)
def test_a_payload_comes_back_as_the_wire_dtype_can_hold_it(
    shape, wire, header_bytes, seed, source
):
    dtype = WIRE_DTYPES[wire]
    staging = Staging("cpu", header_bytes)
    payload = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(source)
    frame = staging.frame("own", shape, dtype)
    frame[:header_bytes] = 7
    staging.pack(payload, dtype, frame)
    out = torch.empty(shape)
    staging.unpack(frame, dtype, out)
    assert torch.equal(out, payload.to(dtype).float())
    assert frame.numel() == header_bytes + payload.numel() * dtype.itemsize
    assert bool((frame[:header_bytes] == 7).all())
    assert staging.staging_s == 0.0


def test_strided_payloads_and_outputs_are_row_major_on_the_wire():
    staging = Staging("cpu", 8)
    payload = torch.arange(24.0).view(4, 6).t()
    frame = staging.frame("own", payload.shape, torch.float32)
    staging.pack(payload, torch.float32, frame)
    assert frame[8:].view(torch.float32).tolist() == payload.flatten().tolist()
    whole = torch.zeros(2, 6, 9)
    staging.unpack(frame, torch.float32, whole[1, :, 2:6])
    assert torch.equal(whole[1, :, 2:6], payload)
    assert whole.count_nonzero() == 23


def test_frames_are_reused_per_key_and_grow_only_when_they_must():
    staging = Staging("cpu", 8)
    large = staging.frame("own", (4, 5), torch.float32)
    assert staging.frame("own", (4, 5), torch.float32).data_ptr() == large.data_ptr()
    small = staging.frame("own", (2, 5), torch.float16)
    assert small.data_ptr() == large.data_ptr() and small.numel() == 8 + 20
    other = staging.frame(("from", 1), (4, 5), torch.float32)
    assert other.data_ptr() != large.data_ptr()
    assert staging.frame("own", (9, 5), torch.float32).numel() == 8 + 180


def test_frame_bytes_counts_header_and_payload():
    assert Staging("cpu", 16).frame_bytes((2, 3), torch.bfloat16) == 16 + 12


def test_other_devices_are_refused():
    with pytest.raises(ConfigError, match="'meta'"):
        Staging("meta", 0)


@cuda
@pytest.mark.parametrize("wire", sorted(WIRE_DTYPES))
def test_cuda_payloads_survive_pinned_frames_that_are_reused(wire):
    dtype = WIRE_DTYPES[wire]
    staging = Staging("cuda", 8)
    rounds = []
    for seed in range(20):
        payload = torch.randn(64, 257, generator=torch.Generator().manual_seed(seed))
        frame = staging.frame("own", payload.shape, dtype)
        assert frame.is_pinned()
        staging.pack(payload.cuda(), dtype, frame)
        received = staging.frame("from", payload.shape, dtype)
        received.copy_(frame)
        out = torch.empty(64, 257, device="cuda")
        staging.unpack(received, dtype, out)
        rounds.append((payload, out))
    for payload, out in rounds:
        assert torch.equal(out.cpu(), payload.to(dtype).float())
    assert staging.staging_s > 0
    staging.reset()
    assert staging.staging_s == 0.0
