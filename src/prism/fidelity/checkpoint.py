"""An unfinished training on disk: whole at any moment, and bound to the arguments it was made with.

It lies inside the output directory and goes when the output is complete.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from prism.errors import ConfigError

FOLDER = ".checkpoint"  # in the output directory
_STATE = "state.pt"
_PUBLISHING = "publishing"
_MOST_TIME = 0.05  # of a training may go into writing it down


def is_publishing(out: Path) -> bool:
    """Return whether a training was stopped while it moved its files to `out`."""
    return (out / FOLDER / _PUBLISHING).exists()


@dataclass
class Checkpoint:
    """The saved state of one training.

    Attributes:
        folder: where it lies; side files of the same training may lie there too.
        arguments: what the training was asked for; only the same goes on from it.
        every_s: seconds between two writes; more where writing takes long.
    """

    folder: Path
    arguments: Mapping[str, str]
    every_s: float

    def __post_init__(self) -> None:
        self._due_s = time.monotonic() + self.every_s

    @property
    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() >= self._due_s

    def open(self, discard: bool) -> dict[str, Any] | None:
        """Make the folder, or find what is there; return the saved state, None where none is.

        Args:
            discard: whether a state that was made with other arguments may be thrown away.

        Raises:
            ConfigError: a state is there that cannot be used, or the folder cannot be made.
        """
        state = self._read(discard)
        if state is not None and (different := self._different(state["arguments"])):
            if not discard:
                raise ConfigError(
                    f"{self.folder.parent} holds an unfinished training with {different}; give the "
                    f"same arguments to go on, --force to start anew, or another --out"
                )
            self.remove()
            state = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--out {self.folder.parent} cannot be written to: {error.strerror}; choose "
                f"another place"
            ) from None
        return state

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state; a reader, and a kill, find the old one or the new one, whole.

        Raises:
            ConfigError: the disk is full or refuses; the old state is intact.
        """
        started_s = time.monotonic()
        temporary = self.folder / f"{_STATE}.tmp"
        try:
            with temporary.open("wb") as stream:
                torch.save({**state, "arguments": dict(self.arguments)}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.folder / _STATE)
        except (OSError, RuntimeError) as error:  # torch says a full disk by a RuntimeError
            temporary.unlink(missing_ok=True)
            raise ConfigError(
                f"cannot write the checkpoint in {self.folder}: {error}; the one before is "
                f"unchanged, free some space and give the same command again"
            ) from error
        now_s = time.monotonic()
        self._due_s = now_s + max(self.every_s, (now_s - started_s) / _MOST_TIME)

    def mark_publishing(self) -> None:
        """Note that files are being moved out; stopped then, the same training may finish it."""
        (self.folder / _PUBLISHING).touch()

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        (self.folder / _PUBLISHING).unlink(missing_ok=True)  # before the state that it speaks of
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, discard: bool) -> dict[str, Any] | None:
        path = self.folder / _STATE
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return state if "arguments" in state else None
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            if discard:
                return None
            raise ConfigError(
                f"{path} cannot be read ({type(error).__name__}); give --force to start anew"
            ) from error

    def _different(self, saved: Mapping[str, str]) -> str:
        names = [name for name, value in self.arguments.items() if saved.get(name) != value]
        return ", ".join(f"{name} {saved.get(name)}, not {self.arguments[name]}" for name in names)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, so that the block happens whole or not at all.

    Outside the main thread, where Ctrl-C never arrives, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    before: Callable[[int, FrameType | None], Any] | int | None = signal.signal(
        signal.SIGINT, lambda number, frame: waiting.append((number, frame))
    )
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting and callable(before):
            before(*waiting[0])
