"""What a MODEL argument means, the same in Python and in every command; no torch.

A MODEL argument is one of

- `digits`, the model that comes with the package;
- a local directory;
- a Hugging Face id;
- `random:NAME_OR_DIR`: random weights of a configuration, the same on every node, for timing. NAME
  is a built-in configuration, such as `vit-base`, or `digits`.

The package's names come first: `digits` is the model in the package even where a directory of that
name lies in the current one. `./digits` is always the directory.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

DIGITS = "digits"
_RANDOM = "random:"


def split_source(source: str) -> tuple[bool, str]:
    """Return whether random weights are asked for, and the name without that word."""
    return source.startswith(_RANDOM), source.removeprefix(_RANDOM)


def files_of(name: str) -> str:
    """Return where the files of a model lie: a directory, or else the name itself, a hub id."""
    if name == DIGITS:
        return str(packaged(name))
    directory = Path(name).expanduser()
    return str(directory) if directory.is_dir() else name


def packaged(name: str) -> Path:
    """Return the directory of a model that comes with the package."""
    return Path(str(resources.files("prism") / "data" / name))
