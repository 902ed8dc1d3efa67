"""What every route of the server works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prism.server.closing import Closing
from prism.server.served import Models
from prism.server.settings import Settings

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from prism.server.batching import Batcher
    from prism.server.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that routes share.

    Attributes:
        models: what is served.
        batchers: by name of a model, what answers its requests.
        metrics: what is counted.
        settings: limits and defaults.
        closing: whether the server closes.
    """

    models: Models
    batchers: Mapping[str, Batcher]
    metrics: Metrics
    settings: Settings
    closing: Closing = field(default_factory=Closing)

    def client_of(self, request: HTTPConnection) -> str:
        """Return whom a request comes from: a key where keys are needed, else an address."""
        if self.settings.keys:
            return self.settings.keys.name_of(request.headers.get("authorization", ""))
        return request.client.host if request.client else ""
