"""How fast a fine-tuning learns, and which samples each of its steps takes."""

from __future__ import annotations

import math

import torch

_WARM_UP = 0.05
_LEAST_RATE = 0.01  # of the peak, so that no step is for nothing


def rate_factor(position: float) -> float:
    """Return the part of the peak learning rate: a linear warm-up, then half a cosine."""
    if position < _WARM_UP:
        return max(_LEAST_RATE, position / _WARM_UP)
    fallen = (position - _WARM_UP) / (1 - _WARM_UP)
    return max(_LEAST_RATE, (1 + math.cos(math.pi * fallen)) / 2)


def rows_of_step(step: int, batch: int, count: int, seed: int) -> list[int]:
    """Return the samples of a step: all of them in a new order, again and again."""
    places = range(step * batch, (step + 1) * batch)
    orders = {
        epoch: torch.randperm(
            count, generator=torch.Generator().manual_seed((seed << 32) + epoch)
        ).tolist()
        for epoch in range(places[0] // count, places[-1] // count + 1)
    }
    return [orders[place // count][place % count] for place in places]
