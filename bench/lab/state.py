"""What is written down of a lab that is up, so that another process can change it or end it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.lab.shape import Board, Link

from prism.errors import ConfigError

ROOT = Path("/run/prism-lab")
_FILE = "lab.json"


@dataclass(frozen=True, slots=True)
class LabState:
    """One lab.

    Attributes:
        name: of the lab.
        kind: what carries its packets.
        link: as it is now.
        boards: all of them.
        cut: indices of the boards whose link is cut.
        offload: whether a forwarder may segment TCP in the boards' place.
        owner: the process it ends with, as id and start time; None: `down` ends it.
    """

    name: str
    kind: str
    link: Link
    boards: tuple[Board, ...]
    cut: frozenset[int] = frozenset()
    offload: bool = True
    owner: tuple[int, str] | None = None

    @property
    def directory(self) -> Path:
        """Where the files of the lab lie."""
        return ROOT / self.name

    @property
    def forsaken(self) -> bool:
        """Whether the process it was to end with is gone, and could not take it down."""
        return self.owner is not None and start_of(self.owner[0]) != self.owner[1]

    def claim(self) -> None:
        """Make the lab's directory and write the state down.

        Raises:
            ConfigError: there is a lab of that name.
        """
        ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            self.directory.mkdir()
        except FileExistsError as error:
            raise ConfigError(
                f"a lab named {self.name} is up; take it down (python -m bench.lab down --lab "
                f"{self.name}) or give this one another name"
            ) from error
        self.save()

    def save(self) -> None:
        values = {**asdict(self), "cut": sorted(self.cut)}
        fresh = self.directory / f"{_FILE}.{os.getpid()}"
        fresh.write_text(json.dumps(values))
        fresh.rename(self.directory / _FILE)

    def forget(self) -> None:
        """Remove the lab's directory. Safe to call twice."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def board(self, name: str) -> Board:
        """Return a board by its name.

        Raises:
            ConfigError: the lab has no such board.
        """
        for board in self.boards:
            if board.name == name:
                return board
        known = ", ".join(board.name for board in self.boards)
        raise ConfigError(f"lab {self.name} has no {name!r}; its boards are {known}")

    def with_link(self, link: Link) -> LabState:
        """Return the state with another link."""
        return replace(self, link=link)

    def with_cut(self, board: Board, cut: bool) -> LabState:
        """Return the state with one board's link cut, or whole."""
        others = self.cut - {board.index}
        return replace(self, cut=others | {board.index} if cut else others)


def read_state(name: str) -> LabState:
    """Return what is written down of a lab.

    Raises:
        ConfigError: no such lab is up.
    """
    try:
        values: dict[str, Any] = json.loads((ROOT / name / _FILE).read_text())
    except FileNotFoundError as error:
        up = ", ".join(state.name for state in states())
        raise ConfigError(
            f"no lab named {name} is up ({f'up: {up}' if up else 'none is'}); python -m bench.lab "
            f"up brings one up"
        ) from error
    owner = values["owner"]
    return LabState(
        name=values["name"],
        kind=values["kind"],
        link=Link(**values["link"]),
        boards=tuple(
            Board(each["index"], tuple(each["cores"]), each["cpu"]) for each in values["boards"]
        ),
        cut=frozenset(values["cut"]),
        offload=values.get("offload", False),  # a lab that is up since before there was a choice
        owner=None if owner is None else (owner[0], owner[1]),
    )


def states() -> Iterator[LabState]:
    """Yield what is written down of every lab."""
    for path in sorted(ROOT.glob(f"*/{_FILE}")):
        with contextlib.suppress(ConfigError):  # taken down just now
            yield read_state(path.parent.name)


def start_of(pid: int) -> str:
    """Return when a process started, which tells it from a later one of its number; "" = gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""
