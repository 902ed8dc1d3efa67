"""Reading a JSON document without trusting it, and replacing one without ever losing it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism.errors import MapError


def read_document(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`.

    Raises:
        MapError: the file cannot be read, or is not one JSON object; names the file and why.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MapError(f"{path} does not exist; make a map with `prism profile`") from None
    except UnicodeDecodeError:
        raise MapError(f"{path} is not a text file; make a map with `prism profile`") from None
    except OSError as error:
        raise MapError(f"{path} cannot be read: {error.strerror}; check its rights") from None
    return parse_document(text, str(path))


def parse_document(text: str, name: str) -> dict[str, Any]:
    """Return the JSON object in `text`; `name` says in errors where it came from."""
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MapError(
            f"{name} is corrupt or truncated ({error}); restore it or run `prism profile` again"
        ) from None
    if not isinstance(document, dict):
        raise MapError(f"{name} is JSON, but no performance map; make one with `prism profile`")
    return document


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def format_document(document: Mapping[str, Any]) -> str:
    """Return JSON with one line per header field and one per entry of a list of objects."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n".join(f"    {json.dumps(item, allow_nan=False)}" for item in value)
            text = f"[\n{items}\n  ]"
        else:
            text = json.dumps(value, allow_nan=False)
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` such that a reader sees the old file or the new one, whole.

    Raises:
        MapError: the disk is full or refuses; the old file is intact, no temporary is left.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise MapError(
            f"cannot write {path}: {error.strerror}; an older map there is unchanged, "
            f"free some space or choose another place"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)  # there is one after a failure or an interrupt only


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
