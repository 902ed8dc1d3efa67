"""Brings the models of a server to its cluster, each with the performance map that is its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from prism.api.cluster import Cluster
from prism.errors import MapError
from prism.perfmap import PerformanceMap
from prism.plan import Objective
from prism.server.served import Models, Served

Waiting = Callable[[str], AbstractContextManager[None]]


def load_models(
    cluster: Cluster,
    sources: Mapping[str, str],
    maps: Sequence[PerformanceMap],
    objective: Objective,
    dtype: str,
    waiting: Waiting,
) -> Models:
    """Load models, and let each answer once, so that the first request finds everything warm.

    Args:
        cluster: with the nodes.
        sources: MODEL arguments by the names they are served under.
        maps: in any order; each belongs to the model whose weights it was measured on.
        objective: what plans are chosen for.
        dtype: of the weights.
        waiting: says what is waited for.

    Raises:
        ModelError: a model cannot be found, loaded or partitioned.
        MapError: a map belongs to none of the models, or to other nodes.
        ClusterError: the nodes cannot answer.
    """
    models: list[Served] = []
    for name, source in sources.items():
        with waiting(f"loading {name} on {len(cluster.nodes)} nodes"):
            model = cluster.load(source, dtype)
        with waiting(f"warming {name} up"):
            models.append(Served.of(name, model))
    by_weights = {each.model.fingerprint: each for each in models}
    for perf in maps:
        if perf.model_hash not in by_weights:
            known = ", ".join(f"{each.name} {hash_[:12]}" for hash_, each in by_weights.items())
            raise MapError(
                f"a map is of a model with the weights {perf.model_hash[:12]}, and the server has "
                f"{known}; make one of these with prism profile"
            )
        by_weights[perf.model_hash].model.use_map(perf, objective=objective)
    return Models(models)
