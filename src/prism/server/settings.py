"""Limits and defaults of a server."""

from __future__ import annotations

from dataclasses import dataclass, field

from prism.plan import Objective
from prism.server.keys import ApiKeys

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and defaults of a server.

    Attributes:
        objective: what plans are chosen for where a request says only a part of it.
        keys: that requests must bring one of; none = everybody may ask.
        most_body_bytes: longest body of a request, unpacked.
        most_json_bytes: longest JSON in one; tensors beyond come as binary data.
        most_arriving_bytes: of all bodies together that are arriving or being worked on.
        body_timeout_s: longest time that a body may take to arrive.
        queue_rows: most rows that wait for a model.
        most_rows: of a batch that requests are joined to.
        drain_s: longest time between being told to stop and having stopped.
    """

    objective: Objective = Objective()
    keys: ApiKeys = field(default_factory=ApiKeys)
    most_body_bytes: int = 64 * _MIB
    most_json_bytes: int = 16 * _MIB
    most_arriving_bytes: int = 512 * _MIB
    body_timeout_s: float = 60.0
    queue_rows: int = 256
    most_rows: int = 32
    drain_s: float = 30.0
