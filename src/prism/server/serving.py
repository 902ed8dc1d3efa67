"""A whole server: models behind their batchers, an application in front, a port, a life."""

from __future__ import annotations

import socket
from collections.abc import Callable

from prism.server.app import create_app
from prism.server.batching import Batcher
from prism.server.closing import Closing
from prism.server.lifecycle import run_server
from prism.server.metrics import Metrics
from prism.server.served import Models
from prism.server.settings import Settings


def serve(
    models: Models, settings: Settings, bound: socket.socket, started: Callable[[], None]
) -> None:
    """Serve models until SIGTERM or Ctrl-C; then answer what was accepted, and return.

    Args:
        models: loaded.
        settings: limits and defaults.
        bound: the port; see `lifecycle.bind`.
        started: called once requests are let in.
    """
    metrics, closing = Metrics(), Closing()
    batchers = {
        name: Batcher(served, metrics, queue_rows=settings.queue_rows, most_rows=settings.most_rows)
        for name, served in models.items()
    }
    app = create_app(models, batchers, metrics, settings, closing)
    run_server(app, bound, closing, settings.drain_s, started)
