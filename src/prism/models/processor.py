"""What this machine's processor can do, as Linux names it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")
# x86, and ARM from version 8.6 on.
_BFLOAT16 = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16")


def has(instructions: str) -> bool:
    """Return whether the processor has these instructions; False where nobody tells."""
    return instructions in _flags()


def has_bfloat16() -> bool:
    """Return whether the processor multiplies in bfloat16 itself, rather than emulating it."""
    return any(has(each) for each in _BFLOAT16)


def half_dtype(device: torch.device) -> torch.dtype:
    """Return what `half` is on a device."""
    return torch.bfloat16 if device.type == "cpu" else torch.float16


def free_memory_bytes(device: torch.device) -> float:
    """Return how much memory is left for another model; infinity where nobody tells."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    kilobytes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return 1024.0 * float(next(kilobytes, "inf"))


@cache
def _flags() -> frozenset[str]:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":") for line in lines)
    lists = (flags for key, _, flags in named if key.strip() in ("flags", "Features"))
    return frozenset(next(lists, "").split())
