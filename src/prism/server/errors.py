"""What a request is refused with: an HTTP status and one sentence, in the protocol's own shape.

Refusal                      status, message, headers
├── BadRequest       400     the request cannot be read, or does not fit the model
├── WrongKey         401     no API key, or one that is not known
├── UnknownModel     404
├── TooSlow          408     the request did not arrive in time
├── TooLarge         413
├── UnknownEncoding  415     a Content-Encoding that cannot be read
└── Busy             503     the queue is full, or the server is closing; says when to come back

What prism itself raises becomes one of these by `refusal_of`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prism.errors import Cancelled, ClusterError, DeadlineExceeded, InputError

_RETRY_AFTER_S = 5.0
_OPENAI_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "server_error",
    504: "server_error",
    500: "server_error",
}


class Refusal(Exception):
    """A request that gets no answer.

    Args:
        message: one sentence that says what was expected.
        status: of HTTP; None = as the class says.
        headers: that the response carries besides its own.
    """

    status: int = 400

    def __init__(
        self, message: str, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.status if status is None else status
        self.headers = dict(headers or {})


class BadRequest(Refusal):
    """A request that cannot be read, or does not fit the model."""


class WrongKey(Refusal):
    """A request without an API key that is known."""

    status = 401

    def __init__(self) -> None:
        super().__init__(
            "this server needs an API key: send the header Authorization: Bearer KEY",
            headers={"WWW-Authenticate": "Bearer"},
        )


class UnknownModel(Refusal):
    """A request for a model that is not served."""

    status = 404

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no model {name[:100]!r}; this server has {', '.join(known)}")


class TooSlow(Refusal):
    """A request whose body did not arrive in time."""

    status = 408


class TooLarge(Refusal):
    """A request, or a part of it, beyond a limit."""

    status = 413


class UnknownEncoding(Refusal):
    """A request in a Content-Encoding that cannot be read."""

    status = 415


class Busy(Refusal):
    """A request that would have to wait too long, or came while the server closes.

    Args:
        retry_after_s: when it may be worth another try.
        message: why.
    """

    status = 503

    def __init__(
        self, retry_after_s: float, message: str = "too many requests are waiting; try again later"
    ) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, headers={"Retry-After": str(max(1, math.ceil(retry_after_s)))})


def refusal_of(error: Exception) -> Refusal | None:
    """Return what an error becomes on its way to a client; None for one that is a mistake here."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InputError):
        return BadRequest(str(error))
    if isinstance(error, DeadlineExceeded):
        return Refusal(str(error), 504)
    if isinstance(error, (Cancelled, ClusterError)):
        return Busy(_RETRY_AFTER_S, str(error))
    return None


def error_document(path: str, refusal: Refusal) -> dict[str, Any]:
    """Return the body of a refusal, in the shape of the protocol that a path belongs to.

    Args:
        path: of the request; below `/v1/` it is OpenAI's, else that of the Open Inference Protocol.
        refusal: what to say.
    """
    if not path.startswith("/v1/"):
        return {"error": refusal.message}
    kind = _OPENAI_TYPES.get(refusal.status, "invalid_request_error")
    return {
        "error": {"message": refusal.message, "type": kind, "param": None, "code": refusal.status}
    }
