"""The life of a server: from a port to its end, which leaves no accepted request unanswered."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from prism.errors import ConfigError
from prism.server.closing import Closing

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What clients sent before the port closed lies in their connections; one look at each reads it.
_SETTLE_S = 0.1
# Of the drain time, kept for giving everything back once the last request is answered.
_GIVING_BACK_S = 2.0
_BACKSTOP_S = 1


def bind(host: str, port: int) -> socket.socket:
    """Take a port; nobody is let in yet.

    Args:
        host: name or address to listen at.
        port: 0 = any that is free.

    Raises:
        ConfigError: it is taken, or the address is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"host {host} cannot be listened at: {error.strerror}") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"port {port} of {host} cannot be taken: {error.strerror}; give another --port"
        ) from error
    return bound


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM end the block like Ctrl-C, so that it gives back what it holds."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_server(
    app: ASGIApp,
    bound: socket.socket,
    closing: Closing,
    drain_s: float,
    started: Callable[[], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer what was accepted, and return.

    Args:
        app: that answers requests.
        bound: the port.
        closing: that the application looks at.
        drain_s: longest time from the signal until everything is given back.
        started: called once requests are let in.
    """
    server = _Server(app, closing, drain_s, started)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # While it serves, uvicorn handles signals itself; when it is done it raises them once more.
    for number in _SIGNALS:
        signal.signal(number, stop)
    server.run([bound])


class _Server(uvicorn.Server):
    """A server that tells an application when it closes."""

    def __init__(
        self, app: ASGIApp, closing: Closing, drain_s: float, started: Callable[[], None]
    ) -> None:
        self._closing = closing
        self._answer_s = max(drain_s / 2, drain_s - _GIVING_BACK_S)
        self._started = started
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="on",
            ws="none",
            server_header=False,
            proxy_headers=False,  # whoever may connect could call itself anybody
            timeout_graceful_shutdown=int(self._answer_s) + _BACKSTOP_S,
        )
        super().__init__(config)

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await asyncio.sleep(_SETTLE_S)
        self._closing.begin()
        expiry = asyncio.get_running_loop().call_later(self._answer_s, self._closing.expire)
        await super().shutdown(sockets)
        expiry.cancel()
