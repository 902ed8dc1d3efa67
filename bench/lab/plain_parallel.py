"""A batch split over two machines the plain way: a loop over torch.distributed, nothing of prism's.

The first machine sends the second half of a batch as it is, bytes of pixels; both run their half;
the second sends its logits back. On the second:

    python -m bench.lab.plain_parallel MODEL ADDRESS PORT
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from bench.lab.shape import DEVICE

from prism.bench.plain import forward_of
from prism.models.load import LoadedModel, load

_TIMEOUT = timedelta(seconds=300)


class PlainParallel:
    """The first machine; the second must be on its way.

    Args:
        loaded: an image classifier, the same as on the second machine.
        address: of this machine.
        port: free on it.
    """

    def __init__(self, loaded: LoadedModel, address: str, port: int) -> None:
        _meet(address, port, 0)
        self._forward = forward_of(loaded)
        self._labels = loaded.info.config.num_labels

    def announce(self, x_BCHW: torch.Tensor, requests: int) -> None:
        """Tell the second machine how many requests of which shape come next."""
        _, *image = x_BCHW.shape
        dist.send(torch.tensor([requests, len(x_BCHW) // 2, *image]), 1)

    def __call__(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the logits of uint8 pixels, (B, labels); B at least 2."""
        theirs = len(x_BCHW) // 2
        own, other = x_BCHW[:-theirs], x_BCHW[-theirs:].contiguous()
        answer = torch.empty(theirs, self._labels)
        # The receive first: Gloo sends to who is ready.
        works = [dist.irecv(answer, 1), dist.isend(other, 1)]
        logits = self._forward({"pixel_values": own}).logits
        for work in works:
            assert work is not None  # only ranks outside the group are given none
            work.wait()
        return torch.cat((logits, answer))

    def close(self) -> None:
        """Let the second machine end, too."""
        dist.send(torch.zeros(5, dtype=torch.long), 1)
        dist.destroy_process_group()


def serve(source: str, address: str, port: int) -> None:
    """Be the second machine until the first closes."""
    torch.set_num_threads(1)
    forward = forward_of(load(source))
    _meet(address, port, 1)
    announced = torch.empty(5, dtype=torch.long)
    while True:
        dist.recv(announced, 0)
        if not announced.any():
            break
        requests, *shape = announced.tolist()
        x_BCHW = torch.empty(shape, dtype=torch.uint8)
        for _ in range(requests):
            dist.recv(x_BCHW, 0)
            dist.send(forward({"pixel_values": x_BCHW}).logits.contiguous(), 0)
    dist.destroy_process_group()


def _meet(address: str, port: int, rank: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = DEVICE
    dist.init_process_group("gloo", f"tcp://{address}:{port}", _TIMEOUT, 2, rank)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
