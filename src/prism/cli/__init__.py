"""The `prism` command: arguments in, tables or one JSON document out; no logic.

Commands import what they need when they run, so that `prism --help` is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from prism.cli import (
    cluster_commands,
    demo_command,
    evaluate_command,
    finetune_command,
    plan_command,
    profile_command,
    run_command,
    serve_command,
)
from prism.errors import InputError, PrismError
from prism.version import VERSION

app = typer.Typer(
    name="prism",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(VERSION)
        raise typer.Exit()


@app.callback()
def _prism(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """One Hugging Face Transformer over a few small devices, only when that is faster."""


cluster_commands.register(app)
run_command.register(app)
demo_command.register(app)
plan_command.register(app)
profile_command.register(app)
evaluate_command.register(app)
finetune_command.register(app)
serve_command.register(app)


def main() -> None:
    """Run the command line; errors are one sentence, exit code 2 for bad input, 1 otherwise."""
    try:
        app()
    except PrismError as error:
        print(f"prism: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt:
        print("prism: interrupted", file=sys.stderr)
        sys.exit(130)
