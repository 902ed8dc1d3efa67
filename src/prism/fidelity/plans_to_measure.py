"""Which plans to measure where nobody names them: those of a map, or a sensible few."""

from __future__ import annotations

from prism.errors import MapError
from prism.fidelity.sample_set import Samples
from prism.fidelity.training_plans import usual_means
from prism.models.families import has_sliding_window
from prism.models.load import LoadedModel
from prism.perfmap import PerformanceMap
from prism.plan import Plan

_NODES = 2


def compressions_of(perf: PerformanceMap, fingerprint: str) -> tuple[Plan, ...]:
    """Return the lossy plans that a map has measured, with their unequal parts.

    Args:
        perf: the map.
        fingerprint: of the loaded model.

    Raises:
        MapError: the map is of other weights, or holds exact plans only.
    """
    if perf.model_hash != fingerprint:
        raise MapError(
            f"the performance map was measured on other weights ({perf.model_hash[:12]}, not "
            f"{fingerprint[:12]}); run `prism profile` on this model"
        )
    plans = tuple(plan for plan in map(Plan.parse, perf.by_shape) if not plan.exact)
    if not plans:
        raise MapError(
            "the performance map holds exact plans only, which lose nothing; profile lossy ones, "
            "or name plans with --plans"
        )
    return plans


def usual_compressions(loaded: LoadedModel, samples: Samples) -> tuple[Plan, ...]:
    """Return Cluster Means and Segment Means on two nodes, of about ten and five positions each.

    A model with sliding windows, for which means are not defined, gets full exchange in float16.
    """
    if has_sliding_window(loaded.info.config):
        return (Plan.parse(f"seq:{_NODES}:full:f16"),)
    means = sorted(usual_means(samples.longest(loaded.info), _NODES))
    return tuple(Plan.parse(f"seq:{_NODES}:{way}{n}:f16") for way in "CL" for n in means)
