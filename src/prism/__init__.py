"""One Hugging Face Transformer over a few small devices, only when that is really faster.

    import prism

    with prism.local_cluster(nodes=2, threads=1, link="100mbit,3ms") as cluster:
        model = cluster.load("path/or/hub-id")
        out = model(plan="seq:2:full", pixel_values=pixels)

Names are loaded when first used: `import prism` imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prism.errors import PrismError
from prism.plan import Objective, Plan
from prism.record import LinkState, RunRecord
from prism.version import VERSION as __version__

if TYPE_CHECKING:
    from prism.api.cluster import Cluster
    from prism.api.model import DistributedModel
    from prism.api.open import connect, local_cluster
    from prism.models.virtual import virtual

__all__ = [
    "Cluster",
    "DistributedModel",
    "LinkState",
    "Objective",
    "Plan",
    "PrismError",
    "RunRecord",
    "__version__",
    "connect",
    "local_cluster",
    "virtual",
]

_LAZY = {
    "Cluster": "prism.api.cluster",
    "DistributedModel": "prism.api.model",
    "connect": "prism.api.open",
    "local_cluster": "prism.api.open",
    "virtual": "prism.models.virtual",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'prism' has no attribute {name!r}")
