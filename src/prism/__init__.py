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

from prism.core import LinkState, Objective, Plan, RunRecord
from prism.errors import PrismError

if TYPE_CHECKING:
    from prism.cluster.session import Cluster, DistributedModel
    from prism.cluster.start import connect, local_cluster
    from prism.models.virtual import virtual

__version__ = "0.1.0"
__all__ = [
    "Cluster",
    "DistributedModel",
    "LinkState",
    "Objective",
    "Plan",
    "PrismError",
    "RunRecord",
    "connect",
    "local_cluster",
    "virtual",
]

_LAZY = {
    "Cluster": "prism.cluster.session",
    "DistributedModel": "prism.cluster.session",
    "connect": "prism.cluster.start",
    "local_cluster": "prism.cluster.start",
    "virtual": "prism.models.virtual",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'prism' has no attribute {name!r}")
