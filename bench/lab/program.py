"""How a command or a benchmark of the lab tells what it does, and how it ends."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

from rich.console import Console

from prism.errors import InputError, PrismError

Tell = Callable[[str], None]
_WRITE_EVERY_S = 5.0
_WRONG_INPUT, _FAILED, _INTERRUPTED = 2, 1, 130


def run_to_end(run: Callable[[], None], name: str) -> int:
    """Run to the end, or until Ctrl-C or SIGTERM, which let every lab be taken down.

    Args:
        run: what there is to do.
        name: of the program, before an error's sentence.

    Returns:
        The exit code: 2 when the caller can mend it, 1 when the machines failed, 130 when it was
        interrupted.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        run()
    except PrismError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return _WRONG_INPUT if isinstance(error, InputError) else _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


@contextlib.contextmanager
def telling() -> Iterator[Tell]:
    """Let a long run say what it does: on one line of a terminal, or a line every few seconds."""
    console = Console(stderr=True)
    told_s = -_WRITE_EVERY_S

    def write(text: str) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= _WRITE_EVERY_S:
            told_s = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    if not console.is_terminal:
        yield write
        return
    with console.status("") as status:
        yield status.update


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
