"""The API keys that a server accepts."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from prism.errors import ConfigError

_SHORTEST = 16
_SCHEME = "bearer"


class ApiKeys:
    """Keys, kept as digests only. Without any, everybody may ask.

    Args:
        keys: at least 16 characters each.

    Raises:
        ConfigError: a key is too short.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        kept = tuple(keys)
        if any(len(key) < _SHORTEST for key in kept):
            raise ConfigError(
                f"an API key needs at least {_SHORTEST} characters; make one with "
                f"python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        self._digests = tuple(_digest(key) for key in kept)

    @classmethod
    def read(cls, path: Path) -> ApiKeys:
        """Read a file of one key a line; empty lines and those that begin with # are left out.

        Raises:
            ConfigError: it cannot be read, holds no key, or one that is too short.
        """
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the API keys of {path} cannot be read: {error}") from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys:
            raise ConfigError(f"{path} holds no API key; write one a line")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, authorization: str) -> bool:
        """Return whether the value of an `Authorization` header brings one of the keys.

        It takes as long for a wrong key as for a right one, wherever they differ.
        """
        scheme, _, key = authorization.partition(" ")
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return not matches or (scheme.lower() == _SCHEME and any(matches))

    def name_of(self, authorization: str) -> str:
        """Return what tells the key of a header from others, without telling the key."""
        return _digest(authorization.partition(" ")[2]).hex()[:12]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.strip().encode()).digest()
