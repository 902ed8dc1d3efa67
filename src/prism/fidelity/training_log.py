"""TensorBoard logs of a fine-tuning: an option, since the package is a large one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from prism.errors import ConfigError
from prism.fidelity.training import Step
from prism.perfmap import Accuracy


class TrainingLog(Protocol):
    """Where the figures of a training go."""

    def step(self, step: Step) -> None:
        """Note one step: losses, learning rate, norm of the gradient."""

    def accuracy(self, when: int, table: Sequence[Accuracy]) -> None:
        """Note what every plan is worth after `when` steps."""


class _NoLog:
    def step(self, step: Step) -> None:
        pass

    def accuracy(self, when: int, table: Sequence[Accuracy]) -> None:
        pass


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def step(self, step: Step) -> None:
        for name, loss in step.losses.items():
            self._writer.add_scalar(f"loss/{name}", loss, step.number)
        self._writer.add_scalar("training/learning rate", step.rate, step.number)
        self._writer.add_scalar("training/gradient norm", step.gradient_norm, step.number)

    def accuracy(self, when: int, table: Sequence[Accuracy]) -> None:
        for entry in table:
            self._writer.add_scalar(f"drop/{entry.plan}", entry.drop, when)


def check_log(folder: Path | None) -> None:
    """Refuse a log that cannot be written, before any work.

    Raises:
        ConfigError: TensorBoard is not installed, or `folder` is a file.
    """
    if folder is None:
        return
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "--tensorboard needs TensorBoard, which is not installed; run "
            "`pip install 'prism-edge[tensorboard]'`"
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--tensorboard {folder} is a file; name a directory")


@contextmanager
def open_log(folder: Path | None, steps_done: int) -> Iterator[TrainingLog]:
    """Open the log of a training, from a step on; None = none.

    Args:
        folder: where it goes on; what it holds of later steps is not shown.
        steps_done: steps taken before.
    """
    if folder is None:
        yield _NoLog()
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=steps_done + 1) as writer:
        yield _TensorBoard(writer)
