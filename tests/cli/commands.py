"""The command line as a person uses it: in this process, or as a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass

from prism.cli import main


@dataclass(frozen=True)
class Result:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


def call(monkeypatch, capsys, *arguments):
    """Run a command in this process, which has torch and transformers already."""
    monkeypatch.setattr(sys, "argv", ["prism", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return Result(code, captured.out, captured.err)


def spawn(*arguments):
    """Start a command as its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", "prism", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
