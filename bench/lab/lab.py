"""A network of boards on this machine, while it is up.

    with Lab(nodes=3, link=Link(rate_bps=100e6, delay_s=3e-3)) as lab:
        process = lab.start("board2", ["prism", "node", ...], Path("board2.log"))
        with lab.inside("board1"):
            ...             # this process is board1: its network, its cores, its share of them
        lab.set_link("20mbit,5ms")
        lab.cut("board2")
        lab.restore("board2")

Whatever ends the `with`, nothing is left: no namespace, device, process or control group. A lab
whose process was killed is taken down by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from bench.lab import namespaces
from bench.lab.forwarder import Carried
from bench.lab.media import AUTO, Medium, choose, medium_of
from bench.lab.operations import change, command_on, dismantle
from bench.lab.quota import CpuQuota
from bench.lab.shape import Board, Link, boards_of, check_name, namespace_of
from bench.lab.state import LabState, start_of, states

from prism.errors import ClusterError

_numbers = itertools.count(1)


class Lab:
    """Two to four boards and the link between them; up while the context lasts.

    Args:
        nodes: how many boards.
        link: between them.
        name: of the lab, if another process is to find it; None = one that no other has.
        cores: by board, the cores it is pinned to; none given = no board is.
        cpu: by board, or one for all, the share of a core it may use; none given = no limit.
        forwarder: what carries packets, one of `media.CHOICES`.
        offload: whether a forwarder may segment TCP in the boards' place, as network cards do.
        stays: whether the lab stays up when this process ends without closing it.

    Raises:
        ConfigError: an argument has a wrong value, or this machine allows no lab; says what to do.
    """

    def __init__(
        self,
        nodes: int = 2,
        link: Link | None = None,
        *,
        name: str | None = None,
        cores: Sequence[Sequence[int]] = (),
        cpu: Sequence[float | None] = (),
        forwarder: str = AUTO,
        offload: bool = True,
        stays: bool = False,
    ) -> None:
        namespaces.check_rights()
        link = link or Link()
        boards = boards_of(nodes, cores, cpu)
        name = check_name(name or f"{os.getpid()}-{next(_numbers)}")
        me = (os.getpid(), start_of(os.getpid()))
        owner = None if stays else me
        self._state = LabState(name, forwarder, link, boards, offload=offload, owner=owner)
        self._medium: Medium | None = None
        self._quotas: dict[int, CpuQuota] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def name(self) -> str:
        return self._state.name

    @property
    def boards(self) -> tuple[Board, ...]:
        return self._state.boards

    @property
    def link(self) -> Link:
        """What lies between the boards now."""
        return self._state.link

    @property
    def kind(self) -> str:
        """What carries the packets: `netem`, `c` or `python`."""
        return self._state.kind

    @property
    def carried(self) -> Carried | None:
        """What the forwarder has done so far; None with netem, which does not count."""
        return self._up().carried()

    def __enter__(self) -> Lab:
        for state in states():
            if state.forsaken:
                dismantle(state)
        kind = choose(self._state.kind, self.link.shared)
        self._state = replace(self._state, kind=kind)
        self._state.claim()
        try:
            self._lay()
        except BaseException:
            self.close()
            raise
        return self

    def _lay(self) -> None:
        medium = medium_of(self._state)
        for board in self.boards:
            end = namespace_of(self.name, board.name)
            namespaces.add(end)
            if board.cpu is not None:
                self._quotas[board.index] = CpuQuota(end, board.cpu)
        medium.lay(self.link)
        self._medium = medium

    def set(self, link: Link) -> None:
        """Change the link for all boards; packets under way keep their time.

        Raises:
            ConfigError: a switched lab cannot become a shared one while it is up, or the reverse.
        """
        self._change(self._state.with_link(link))

    def set_link(self, text: str) -> None:
        """Change rate and delay, given as text: `100mbit,3ms`."""
        self.set(self.link.reshaped(text))

    def cut(self, name: str) -> None:
        """Cut the link of a board: what it sends and what is sent to it is lost."""
        self._change(self._state.with_cut(self._state.board(name), True))

    def restore(self, name: str) -> None:
        """Make the link of a board whole again."""
        self._change(self._state.with_cut(self._state.board(name), False))

    def _change(self, wanted: LabState) -> None:
        change(self._up(), self._state, wanted)
        self._state = wanted

    def start(
        self,
        name: str,
        command: Sequence[str],
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program on a board: its network, its cores, its share of them.

        Args:
            name: of the board.
            command: the program and its arguments.
            log: file for its output; None = this process's output.
            environment: variables besides this process's own.
        """
        words = command_on(self._state, name, command)
        with contextlib.ExitStack() as files:
            output = None if log is None else files.enter_context(log.open("wb"))
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C is for the lab, which ends it in order
            )
        self._processes.append(process)
        return process

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Make this process a program of a board, with what it starts meanwhile.

        The network is this thread's and that of threads it starts; a socket keeps the network in
        which it was made.
        """
        board = self._state.board(name)
        with contextlib.ExitStack() as leaving:
            if board.index in self._quotas:
                leaving.enter_context(self._quotas[board.index].limiting_this_process())
            if board.cores:
                leaving.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
                os.sched_setaffinity(0, board.cores)
            leaving.enter_context(self.network(name))
            yield

    def network(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Let this thread use a board's network, and nothing else of it."""
        return namespaces.network(namespace_of(self.name, self._state.board(name).name))

    def close(self) -> None:
        """Take the lab down. Safe to call twice."""
        self._quotas.clear()
        dismantle(self._state, self._medium)
        self._medium = None
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def _up(self) -> Medium:
        if self._medium is None:
            raise ClusterError(f"lab {self.name} is not up; use it within its `with`")
        return self._medium

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
