"""What can be done to a lab that is up, by whichever process: it needs the lab's state only."""

from __future__ import annotations

from collections.abc import Sequence

from bench.lab import namespaces
from bench.lab.media import Medium, medium_of
from bench.lab.quota import members_of, remove_group
from bench.lab.shape import namespace_of
from bench.lab.state import LabState

from prism.errors import ConfigError


def change(medium: Medium, now: LabState, wanted: LabState) -> None:
    """Bring a lab from one state to another, and write that down.

    Args:
        medium: of the lab.
        now: the state it is in.
        wanted: the same lab with another link, or with other links cut.

    Raises:
        ConfigError: a switched lab cannot become a shared one while it is up, or the reverse.
    """
    if wanted.link.shared != now.link.shared:
        raise ConfigError("whether a lab's medium is shared cannot change while it is up")
    medium.reshape(wanted.link, [board for board in wanted.boards if board.index in wanted.cut])
    wanted.save()


def command_on(state: LabState, name: str, command: Sequence[str]) -> list[str]:
    """Return a command line that runs a program on a board: its network, its cores, its share.

    Args:
        state: of the lab.
        name: of the board.
        command: the program and its arguments.

    Raises:
        ConfigError: the lab has no such board.
    """
    board = state.board(name)
    space = namespace_of(state.name, name)
    words: list[str] = []
    if board.cpu is not None:
        # The shell joins the group and becomes the program, so no process of it was ever outside.
        words += ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(members_of(space))]
    words += ["ip", "netns", "exec", space]
    if board.cores:
        words += ["taskset", "--cpu-list", ",".join(map(str, board.cores))]
    return [*words, *command]


def dismantle(state: LabState, medium: Medium | None = None) -> None:
    """Take a lab away with all that runs in it. Safe to call twice.

    Args:
        state: of the lab.
        medium: of the lab, where this process laid it.
    """
    (medium or medium_of(state)).close()
    for board in state.boards:
        space = namespace_of(state.name, board.name)
        namespaces.remove(space)
        if board.cpu is not None:
            remove_group(space)
    state.forget()
