"""Which plans are measured as one, and which where nobody names any: a map's, or a sensible few."""

from __future__ import annotations

from dataclasses import replace

from prism.errors import MapError
from prism.fidelity.sample_set import Samples
from prism.fidelity.training_plans import usual_means
from prism.models.families import has_sliding_window
from prism.models.load import LoadedModel
from prism.perfmap import PerformanceMap
from prism.plan import Plan
from prism.planner.precisions import covered_plans

_NODES = 2


def measured_as(plan: Plan) -> Plan:
    """Return the plan by whose answers a plan is judged.

    Where nothing is exchanged inside the model it is `local` at the same precision, wherever and
    with however many nodes the plan runs; else the plan itself, on any nodes.
    """
    if plan.exchanges:
        return replace(plan, nodes=(), count=plan.size)
    return Plan(precision=plan.precision)


def compressions_of(perf: PerformanceMap, fingerprint: str) -> tuple[Plan, ...]:
    """Return the lossy plans that a map covers, with their unequal parts, each once.

    Those that the planner derives from measured ones, at other precisions, are among them.

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
    covered = map(measured_as, covered_plans(perf))
    plans = tuple(dict.fromkeys(plan for plan in covered if not plan.exact))
    if not plans:
        raise MapError(
            "the performance map holds exact plans only, which lose nothing; profile lossy ones, "
            "or name plans with --plans"
        )
    return plans


def usual_compressions(loaded: LoadedModel, samples: Samples) -> tuple[Plan, ...]:
    """Return Cluster Means and Segment Means on two nodes, of about ten and five positions each.

    A model with sliding windows, for which means are not defined, gets full exchange in float16.
    With them come the precisions alone, and int8 together with what loses least of these.
    """
    if has_sliding_window(loaded.info.config):
        exchanges = [f"seq:{_NODES}:full:f16"]
        best = exchanges[0]
    else:
        means = sorted(usual_means(samples.longest(loaded.info), _NODES))
        exchanges = [f"seq:{_NODES}:{way}{n}:f16" for way in "CL" for n in means]
        best = f"seq:{_NODES}:C{means[-1]}:f16"
    return tuple(map(Plan.parse, [*exchanges, "local:half", "local:int8", f"{best}:int8"]))
