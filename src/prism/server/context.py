"""What every route of the server works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prism.server.served import Models
from prism.server.settings import Settings

if TYPE_CHECKING:
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
    """

    models: Models
    batchers: Mapping[str, Batcher]
    metrics: Metrics
    settings: Settings
