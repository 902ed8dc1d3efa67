"""Fields of a JSON document or a form that a client sent, taken one by one and all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from prism.server.errors import BadRequest

Value = TypeVar("Value")


class Fields:
    """The fields of a request; who has taken all calls `end`, which refuses the others.

    A field that is null counts as one that is not there.

    Args:
        document: what the client sent.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._left: dict[str, Any] = dict(document)
        self._known: list[str] = []

    def take(self, name: str) -> Any:
        """Return a field as it is; None where there is none."""
        self._known.append(name)
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        """Return a text.

        Raises:
            BadRequest: it is something else.
        """
        return self._of(name, str, "a text")

    def integer(self, name: str) -> int | None:
        """Return a whole number; raises as `text` does."""
        return self._of(name, int, "a whole number")

    def boolean(self, name: str) -> bool | None:
        """Return true or false; raises as `text` does."""
        return self._of(name, bool, "true or false")

    def mapping(self, name: str) -> dict[str, Any]:
        """Return an object, an empty one where there is none; raises as `text` does."""
        return self._of(name, dict, "an object") or {}

    def choice(self, name: str, among: Sequence[str]) -> str | None:
        """Return one of several words; raises as `text` does."""
        value = self.text(name)
        if value is not None and value not in among:
            raise BadRequest(f"{name} must be {' or '.join(among)}, not {value[:50]!r}")
        return value

    def end(self) -> None:
        """Check that nothing is left.

        Raises:
            BadRequest: there is a field that nobody knows.
        """
        for name in self._left:
            raise BadRequest(
                f"unknown field {name[:50]!r}; known are {', '.join(sorted(set(self._known)))}"
            )

    def _of(self, name: str, kind: type[Value], words: str) -> Value | None:
        value = self.take(name)
        # Not isinstance alone: true is no number.
        if value is None or (isinstance(value, kind) and type(value) is kind):
            return value
        raise BadRequest(f"{name} must be {words}, not {_kind(value)}")


def _kind(value: Any) -> str:
    """Return what JSON calls a value."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")
