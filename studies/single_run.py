"""What studies with one run per model share: the command, and where the figures come from."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from studies.packages import StudyError
from studies.real_models import add_cache

from prism.errors import PrismError

# Of two samples at least an interval, or a nearest other one, can be told.
_LEAST_SAMPLES = 2


def run_command(
    description: str,
    models: Iterable[str],
    run: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
) -> None:
    """Read the command line and run a study; what it refuses ends the command with code 2.

    Args:
        description: of the study.
        models: that it knows.
        run: is given `model`, `out`, `cache`, `samples`, `threads`, `seed` and `force`.
        arguments: of the command; None = those of this process.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", choices=tuple(models))
    parser.add_argument("--out", type=Path, default=Path("docs/results"), metavar="DIR")
    add_cache(parser)
    parser.add_argument("--samples", type=int, help="windows or images to measure")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of samples (default 0)")
    parser.add_argument("--force", action="store_true", help="throw away what does not fit")
    options = parser.parse_args(arguments)
    if options.samples is not None and options.samples < _LEAST_SAMPLES:
        parser.error(f"--samples must be at least {_LEAST_SAMPLES}, not {options.samples}")
    torch.set_num_threads(options.threads)
    try:
        run(options)
    except (StudyError, PrismError) as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "stopped; the same command goes on from here\n")


def command_of(study: str, options: argparse.Namespace, samples: int) -> str:
    """Return the command that measures the same again."""
    return (
        f"python -m studies.{study} {options.model} --samples {samples} --seed {options.seed} "
        f"--threads {options.threads}"
    )


def page_of(title: str, text: str, table: str, content: Mapping[str, Any], stage: str) -> str:
    """Return a Markdown page: a table, and by which command, when and with what it was made.

    Args:
        title: of the page.
        text: what was measured, a paragraph.
        table: in Markdown.
        content: of the results' JSON file.
        stage: that the table shows.
    """
    found = content[stage]
    setting = ", ".join(f"{name} {value}" for name, value in content["setting"].items())
    used = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    origin = (
        f"`{found['command']}` ({found['date']}; {used}; weights {found['fingerprint'][:12]})."
        f" Setting: {setting}."
    )
    return "\n\n".join([f"# {title}", text, table, origin]) + "\n"
