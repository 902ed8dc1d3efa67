"""What can still be run after a plan has failed: a pure answer from the plan and who is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from prism.plan import Plan, Precision


class Placed(NamedTuple):
    """A plan and the nodes that run it, rank 0 first."""

    plan: Plan
    nodes: tuple[str, ...]

    @property
    def key(self) -> str:
        """Text that tells this plan on these nodes from every other."""
        return f"{self.plan.shape} {'+'.join(self.nodes)}"


def place(plan: Plan, names: Sequence[str]) -> Placed:
    """Return a plan on nodes of `names`.

    Raises:
        PlanError: as `Plan.place`.
    """
    return Placed(plan.on(names), plan.place(names))


def fallbacks(
    failed: Placed,
    ready: Sequence[str],
    everyone: Sequence[str],
    alone: Precision = "float32",
) -> tuple[Placed, ...]:
    """Return what those who are left can run instead: once more together, then each alone.

    A plan that exchanges less is not made smaller: nobody measured the accuracy of the smaller one.
    Nodes of the plan come before others.

    Args:
        failed: what failed.
        ready: nodes that could work, in the cluster's order.
        everyone: all nodes of the cluster in its order.
        alone: the precision at which every node that is ready has the model.
    """
    plan = failed.plan
    left = tuple(name for name in failed.nodes if name in ready)
    others = tuple(name for name in ready if name not in left)
    found = []
    if (plan.exact or not plan.exchanges) and 2 <= len(left) < plan.size:
        weights = dict(zip(failed.nodes, plan.shares, strict=False))
        kept = tuple(weights[name] for name in left) if any(map(weights.get, left)) else ()
        # Named only where a count would mean other nodes.
        counted = left == tuple(everyone[: len(left)])
        who = {"nodes": ()} if counted else {"nodes": left}
        smaller = replace(plan, **who, count=len(left) if counted else 0, shares=kept)
        found.append(Placed(smaller, left))
    found += [Placed(Plan("local", (name,), precision=alone), (name,)) for name in (*left, *others)]
    return tuple(each for each in found if each != failed)
