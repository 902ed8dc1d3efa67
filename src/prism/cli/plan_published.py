"""What the authors of the shipped map say of a crossover that `prism plan` predicts from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prism.plan import Plan
from prism.planner import crossover_bps

if TYPE_CHECKING:
    from prism.cli.plan_question import Question
    from prism.planner import Sweep

# What the authors of the shipped map's tables say of the same boards, read off a plot of theirs.
_MAP = "published:vit-b16"
_PLAN = Plan.parse("seq:2:L10")
_BATCH = 8
_BPS = 340e6


def published(question: Question, sweep: Sweep) -> dict[str, Any] | None:
    """Return what the authors of the shipped map say of this very crossover, if they do.

    Their table allows two linear readings: only the bytes sent scale with the bandwidth, as the
    planner has it, or all of the communication does. Nothing is fitted to the plot.
    """
    model, at = question.model, (_BATCH, question.length)
    here = (sweep.axis, question.batch, question.objective.metric)
    if (
        question.map.model_hash != _MAP
        or here != ("bandwidth_bps", _BATCH, "latency")
        or (str(Plan()), str(_PLAN)) not in {(c.before, c.after) for c in sweep.crossovers}
    ):
        return None
    ours_bps = crossover_bps(model, _PLAN, Plan(), *at, question.link)
    split = model.predict(_PLAN, *at, question.map.link.state())
    spare_s = model.predict(Plan(), *at, question.link).total_s - (split.total_s - split.comm_s)
    all_bps = question.map.link.bandwidth_bps * split.comm_s / spare_s
    assert ours_bps is not None  # the sweep has just found it
    explanation = (
        f"Published for {_PLAN} against local at batch {_BATCH}: about "
        f"{_BPS / 1e6:.4g} Mbit/s, read off a plot; predicted here: "
        f"{ours_bps / 1e6:.4g} Mbit/s.\n"
        f"They differ because the prediction follows the published table, with a link time linear "
        f"in bytes over bandwidth: that gives {ours_bps / 1e6:.4g} Mbit/s if only the bytes sent "
        f"scale with the bandwidth (as here) and {all_bps / 1e6:.4g} Mbit/s if all of the measured "
        f"communication does; the plot fits neither, and nothing here is fitted to it."
    )
    return {
        "plan": str(_PLAN),
        "batch": _BATCH,
        "published_bps": _BPS,
        "predicted_bps": ours_bps,
        "all_communication_scales_bps": all_bps,
        "explanation": explanation,
    }
