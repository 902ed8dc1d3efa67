"""From a backend's name to what runs a model: tried, compared with eager, and perhaps timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from prism.errors import ConfigError, UnsupportedPrecision
from prism.models.backends.base import Backend, Call, name_of
from prism.models.backends.failure import named_failure
from prism.models.backends.registry import AUTO, BACKENDS, EAGER
from prism.models.backends.rehearsal import sample_inputs
from prism.models.load import LoadedModel
from prism.plan import Precision

# How far a backend's outputs may be from eager's at the same precision: |a - b| / |b| of every
# output, real tokens only. Halves and 8-bit integers are rounded in other places.
TOLERANCE: Mapping[Precision, float] = {"float32": 1e-4, "half": 5e-2, "int8": 1e-1}
_ROUNDS = 5
_SLOW_TO_LOAD = ("compile",)  # minutes
_LONGEST_S = 5.0
# Faster than eager by less than this is no reason to leave it.
_WORTH = 0.02


@dataclass(frozen=True, slots=True)
class Prepared:
    """A backend that has prepared one model; itself a `Backend`.

    Attributes:
        backend: the one that was chosen.
        call: what it made of the model.
        model: the model.
        measured_s: seconds of one forward by backend, where several were timed.
        refused: by backend, why it was left out.
    """

    backend: Backend
    call: Call
    model: Any
    measured_s: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the backend that was chosen."""
        return self.backend.name

    @property
    def hooked(self) -> bool:
        """See `Backend.hooked`."""
        return self.backend.hooked

    def obstacle(self, loaded: LoadedModel) -> str:
        """See `Backend.obstacle`."""
        return self.backend.obstacle(loaded)

    def prepare(self, loaded: LoadedModel) -> Call:
        """Return what is there already, or prepare a part of the model; see `Backend.prepare`."""
        return self.call if loaded.model is self.model else self.backend.prepare(loaded)


def choose(name: str, loaded: LoadedModel) -> Prepared:
    """Prepare a model with the backend of a name, or for `auto` with the one that is fastest here.

    What it prepares has given eager's outputs on a sample, within `TOLERANCE`. `auto` leaves out
    what cannot run the model, and `compile`, which takes minutes to load, and keeps eager unless
    another gains something.

    Raises:
        ConfigError: no backend has this name.
        UnsupportedPrecision: it cannot run this model here, or gives other outputs; says why.
    """
    check_backend(name)
    if name != AUTO:
        return _checked(BACKENDS[name], loaded)
    able: list[Prepared] = []
    refused: dict[str, str] = {}
    for backend in BACKENDS.values():
        if backend.name in _SLOW_TO_LOAD:
            continue
        try:
            able.append(_checked(backend, loaded))
        except UnsupportedPrecision as error:
            refused[backend.name] = str(error)
    measured_s = _measure(loaded, able)
    fastest = min(able, key=lambda each: measured_s[each.name])
    if measured_s[fastest.name] > (1 - _WORTH) * measured_s[EAGER.name]:
        fastest = next(each for each in able if each.name == EAGER.name)
    return Prepared(fastest.backend, fastest.call, loaded.model, measured_s, refused)


def check_backend(name: str) -> None:
    """Check that a backend has this name.

    Raises:
        ConfigError: none has.
    """
    if name != AUTO and name not in BACKENDS:
        raise ConfigError(f"there is no backend {name!r}; use {', '.join((*BACKENDS, AUTO))}")


def difference(output: Any, other: Any, mask: torch.Tensor | None = None) -> float:
    """Return the largest |a - b| / |b| of two outputs' tensors, real tokens only.

    Infinity where one has tensors that the other has not, or a value is no number.
    """
    ours, theirs = _tensors(output, mask), _tensors(other, mask)
    if ours.keys() != theirs.keys() or any(ours[k].shape != theirs[k].shape for k in ours):
        return float("inf")
    errors = [
        float((ours[key] - theirs[key]).norm() / theirs[key].norm().clamp_min(1e-12))
        for key in theirs
    ]
    return max((each if each == each else float("inf") for each in errors), default=float("inf"))


def _checked(backend: Backend, loaded: LoadedModel) -> Prepared:
    with named_failure(backend, loaded):
        call = backend.prepare(loaded)
    if backend is not EAGER:
        allowed = TOLERANCE[loaded.precision]
        inputs = sample_inputs(loaded, 3, padded=True)
        mask = inputs.get("attention_mask")
        with named_failure(backend, loaded), torch.inference_mode():
            found = difference(call(**inputs), loaded.model(**inputs), mask)
        if not found <= allowed:
            raise UnsupportedPrecision(
                f"{backend.name} gives other outputs than eager for {name_of(loaded)} at "
                f"{loaded.precision}: they differ by {found:.1e}, allowed is {allowed:.0e}; "
                f"use eager"
            )
    return Prepared(backend, call, loaded.model)


def _tensors(output: Any, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    found = {}
    for name, value in output.items():
        if isinstance(value, torch.Tensor):
            by_token = mask is not None and tuple(value.shape[:2]) == tuple(mask.shape)
            real = value[mask.bool()] if by_token and mask is not None else value
            found[name] = real.float()
    return found


def _measure(loaded: LoadedModel, able: list[Prepared]) -> dict[str, float]:
    """Return the median time of one forward by backend, in seconds, taken in turns."""
    inputs = sample_inputs(loaded, 1)
    taken_s: dict[str, list[float]] = {each.name: [] for each in able}
    ends_s = time.perf_counter() + _LONGEST_S
    with torch.inference_mode():
        for turn in range(1 + _ROUNDS):
            for each in able:
                started_s = time.perf_counter()
                each.call(**inputs)
                if turn:  # the first time, memory is still being taken
                    taken_s[each.name].append(time.perf_counter() - started_s)
            if turn and time.perf_counter() > ends_s:
                break
    return {name: statistics.median(each) for name, each in taken_s.items()}
