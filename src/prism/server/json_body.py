"""JSON from a client: read with limits."""

from __future__ import annotations

import json
from typing import Any

from prism.server.errors import BadRequest, TooLarge

_MIB = 1 << 20


def read_object(raw: bytes | memoryview, most_bytes: int) -> dict[str, Any]:
    """Return the object that JSON holds.

    Args:
        raw: UTF-8.
        most_bytes: longest that is read.

    Raises:
        TooLarge: it is longer.
        BadRequest: it is no JSON, is nested too deeply, or is something else than an object.
    """
    if len(raw) > most_bytes:
        raise TooLarge(
            f"the JSON has {len(raw) / _MIB:.1f} MiB, {most_bytes / _MIB:g} are allowed; "
            f"send large tensors as binary data"
        )
    try:
        document = json.loads(bytes(raw).decode(), parse_constant=_refuse)
    except RecursionError as error:
        raise BadRequest("the JSON is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"the JSON is not UTF-8: {error.reason} at byte {error.start}") from error
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest('the JSON must be an object, such as {"inputs": [...]}')
    return document


def _refuse(word: str) -> Any:
    raise BadRequest(f"{word} is not JSON; send such values as binary data")
