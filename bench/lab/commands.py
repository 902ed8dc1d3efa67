"""`python -m bench.lab`: a lab by hand.

sudo python -m bench.lab up --nodes 3 --rate 100mbit --delay 3ms
sudo python -m bench.lab run board2 -- prism node --name board2 ...
sudo python -m bench.lab set --rate 20mbit
sudo python -m bench.lab cut board2
sudo python -m bench.lab restore board2
sudo python -m bench.lab down
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from bench.lab import namespaces
from bench.lab.cost import add_cost_options, tell_cost
from bench.lab.media import medium_of
from bench.lab.operations import change, command_on, dismantle
from bench.lab.options import add_lab_options, add_link_options, lab_of
from bench.lab.program import run_to_end
from bench.lab.state import LabState, read_state, states

from prism.errors import ConfigError, PrismError

_DEFAULT = "lab"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = parser().parse_args(arguments)

    def run() -> None:
        namespaces.check_rights()
        options.run(options)

    return run_to_end(run, "bench.lab")


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    whole = argparse.ArgumentParser(
        prog="python -m bench.lab",
        description="Boards in network namespaces, joined by a link that can be shaped.",
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], text: str
    ) -> argparse.ArgumentParser:
        each = commands.add_parser(name, help=text, description=text)
        each.set_defaults(run=run)
        each.add_argument("--lab", default=_DEFAULT, help=f"name of the lab (default: {_DEFAULT})")
        return each

    add_lab_options(command("up", up, "Bring a lab up; it stays until it is taken down."), nodes=2)
    setting = command("set", set_link, "Change the link while it runs.")
    add_link_options(setting, None, None)
    for name, run, text in (
        ("cut", cut, "Cut the link of a board."),
        ("restore", restore, "Make the link of a board whole again."),
    ):
        command(name, run, text).add_argument("board")
    running = command("run", run_on, "Run a program on a board.")
    running.add_argument("board")
    running.add_argument("program", nargs=argparse.REMAINDER, help="after --")
    command("status", status, "Say what is up, and what it has carried.")
    command("down", down, "Take a lab down, with all that runs in it.")
    add_cost_options(command("cost", tell_cost, "Measure what the lab itself costs."))
    return whole


def up(options: argparse.Namespace) -> None:
    lab = lab_of(options, name=options.lab, stays=True)
    lab.__enter__()  # what ends it is `down`
    boards = ", ".join(f"{board.name} {board.address}" for board in lab.boards)
    print(f"lab {lab.name} is up: {boards}; {lab.link}; carried by {lab.kind}")


def set_link(options: argparse.Namespace) -> None:
    state = read_state(options.lab)
    if options.rate is options.delay is options.loss is None:
        raise ConfigError("nothing to set; name --rate, --delay or --loss")
    wanted = state.with_link(state.link.changed(options.rate, options.delay, options.loss))
    change(medium_of(state), state, wanted)
    print(f"lab {state.name}: {wanted.link}")


def cut(options: argparse.Namespace) -> None:
    _cut(options, True)


def restore(options: argparse.Namespace) -> None:
    _cut(options, False)


def _cut(options: argparse.Namespace, cut: bool) -> None:
    state = read_state(options.lab)
    change(medium_of(state), state, state.with_cut(state.board(options.board), cut))


def run_on(options: argparse.Namespace) -> None:
    """Become a program on a board; does not come back."""
    program = options.program[options.program[:1] == ["--"] :]
    if not program:
        raise ConfigError(f"nothing to run; write run {options.board} -- PROGRAM")
    words = command_on(read_state(options.lab), options.board, program)
    sys.stdout.flush()
    os.execvp(words[0], words)


def status(options: argparse.Namespace) -> None:
    for state in states():
        print(_described(state))


def _described(state: LabState) -> str:
    parts = [f"{state.name}: {len(state.boards)} boards, {state.link}, carried by {state.kind}"]
    parts += [f"{board.name} is cut off" for board in state.boards if board.index in state.cut]
    try:
        carried = medium_of(state).carried()
    except PrismError as error:
        return "; ".join((*parts, str(error)))
    if carried is not None and carried.packets:
        parts.append(
            f"{carried.packets} packets, {carried.lost} lost, {carried.dropped} dropped at a full "
            f"queue, {1e6 * carried.late_s / carried.packets:.0f} us late on average, "
            f"{carried.cpu_s:.1f} s of processor time"
        )
    return "; ".join(parts)


def down(options: argparse.Namespace) -> None:
    dismantle(read_state(options.lab))
