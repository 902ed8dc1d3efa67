"""What every request passes before a route sees it: key, size, time, and a client that is there.

    refuse a wrong key, and a body that says it is too long
    take the body whole, within size, time and memory
    answer, as long as the client waits and the drain time lasts

Refused requests cost no more than what was read of them, and a slow client keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prism.server.context import Context
from prism.server.errors import (
    Busy,
    Refusal,
    TooLarge,
    TooSlow,
    UnknownEncoding,
    WrongKey,
    error_document,
)

# Whoever watches over the server has no key.
_OPEN = ("/v2/health/live", "/v2/health/ready")
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_RETRY_AFTER_S = 1.0


class Gate:
    """Lets requests through to an application.

    Args:
        app: that answers them.
        context: the keys, the limits, the metrics and whether the server closes.
    """

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app = app
        self._context = context
        self._settings = context.settings
        self._closing = context.closing
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        held, sent = _Held(self), _Sent(send)
        begun_s = time.monotonic()
        try:
            self._check(scope["path"], headers)
            body = await self._arrive(receive, headers, held)
            await self._answer(scope, _Replay(body, receive), sent)
        except _Gone:
            return
        except Refusal as refusal:
            document = error_document(scope["path"], refusal)
            response = JSONResponse(document, refusal.status, refusal.headers)
            await response(scope, receive, sent)
        finally:
            held.release()
            self._count(scope, sent.status, time.monotonic() - begun_s)

    def hold(self, nbytes: int) -> None:
        """Count bytes of bodies as being in memory; fewer with a negative number.

        Raises:
            Busy: there are too many.
        """
        if nbytes > 0 and self._held_bytes + nbytes > self._settings.most_arriving_bytes:
            raise Busy(_RETRY_AFTER_S, "the requests that are arriving fill the memory; try again")
        self._held_bytes += nbytes

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that has its response; a client that went away has none."""
        if not status:
            return
        # Routes put both there; a request that was refused before has come to none.
        route = getattr(scope.get("route"), "path", "")
        name = scope.get("path_params", {}).get("name") or scope.get("state", {}).get("model", "")
        model = name if name in self._context.models else ""
        self._context.metrics.request_ended(model, route, status, seconds)

    def _check(self, path: str, headers: Headers) -> None:
        if path not in _OPEN and not self._settings.keys.accept(headers.get("authorization", "")):
            raise WrongKey
        length = headers.get("content-length", "0")
        if path in _OPEN and ("transfer-encoding" in headers or int(length)):
            raise TooLarge("this page takes no body; send the request without one")
        # The protocol below has checked that it is a number.
        if int(length) > self._settings.most_body_bytes:
            raise self._too_large()

    async def _arrive(self, receive: Receive, headers: Headers, held: _Held) -> bytes:
        """Return the whole body, unpacked.

        Raises:
            Refusal: it is too long or too slow, cannot be unpacked, or the server closes.
        """
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return b""
        reading = asyncio.ensure_future(self._read(receive, headers, held))
        timeout_s = self._settings.body_timeout_s
        try:
            with self._closing.arriving(reading):
                return await asyncio.wait_for(reading, timeout_s)
        except asyncio.TimeoutError:
            raise TooSlow(
                f"the body did not arrive within {timeout_s:g} s; send it faster"
            ) from None
        except asyncio.CancelledError:
            if self._closing.begun:
                raise Busy(_RETRY_AFTER_S, "the server closes; try another one") from None
            raise

    async def _read(self, receive: Receive, headers: Headers, held: _Held) -> bytes:
        unpack = self._unpacker(headers.get("content-encoding", "identity"))
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            more = message.get("more_body", False)
            part = unpack(message.get("body", b""), more)
            held.add(len(part))
            body += part
            if len(body) > self._settings.most_body_bytes:
                raise self._too_large()
        return bytes(body)

    def _unpacker(self, encoding: str) -> Callable[[bytes, bool], bytes]:
        """Return what unpacks part after part of a body, never more than is allowed at once."""
        if encoding == "identity":
            return lambda part, _more: part
        if encoding not in _WINDOW_BITS:
            raise UnknownEncoding(
                f"Content-Encoding {encoding[:40]!r} is not known; send gzip, deflate or neither"
            )
        unpacking = zlib.decompressobj(_WINDOW_BITS[encoding])
        most = self._settings.most_body_bytes + 1

        def unpack(part: bytes, more: bool) -> bytes:
            try:
                made = unpacking.decompress(part, most)
            except zlib.error as error:
                raise Refusal(f"the body is no {encoding}: {error}") from error
            if not more and not unpacking.eof and len(made) < most:
                raise Refusal(f"the body, which is {encoding}, is cut short")
            return made

        return unpack

    async def _answer(self, scope: Scope, replay: _Replay, sent: _Sent) -> None:
        """Run the application until it has answered, the client is gone or the time is over."""
        answering = asyncio.ensure_future(self._app(scope, replay, sent))
        leaving = asyncio.ensure_future(replay.disconnected())
        try:
            with self._closing.working(answering):
                await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    answering.cancel()
                await answering
        except asyncio.CancelledError:
            if self._closing.expired and not sent.status:
                raise Busy(_RETRY_AFTER_S, "the server closed before this was answered") from None
            if not leaving.done():
                raise
        finally:
            answering.cancel()
            leaving.cancel()

    def _too_large(self) -> TooLarge:
        most = self._settings.most_body_bytes
        return TooLarge(f"the body has more than the {most} bytes that this server takes")


class _Gone(Exception):  # noqa: N818 - nobody is there to be told
    """The client went away before its request had arrived."""


class _Sent:
    """Sends a response, and remembers its status; 0 = there is none yet."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        await self._send(message)


class _Held:
    """The bytes of one request that count as being in memory."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._nbytes = 0

    def add(self, nbytes: int) -> None:
        self._gate.hold(nbytes)
        self._nbytes += nbytes

    def release(self) -> None:
        self._gate.hold(-self._nbytes)


class _Replay:
    """What an application receives: the body at once, and later that the client is gone."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive
        self._gone = asyncio.Event()

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def disconnected(self) -> None:
        """Wait until the client is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
