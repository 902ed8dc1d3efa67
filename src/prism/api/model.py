"""A model on the nodes of a cluster, called like the model itself."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from prism.api.condition import Condition
from prism.api.placement import Placement, identity_of
from prism.coordinator.adaptive import Adaptive
from prism.coordinator.dispatch import Work
from prism.coordinator.experience import Experience
from prism.coordinator.link_monitor import LinkMonitor
from prism.coordinator.live import LiveCluster
from prism.coordinator.loading import ModelNodes
from prism.coordinator.recovery import Placed
from prism.coordinator.requests import Request, ResponseFuture
from prism.engine.strategies import STRATEGIES
from prism.errors import ClusterError, ConfigError, MapError, PlanError
from prism.fidelity.accuracy import accuracy_of
from prism.models.inputs import check_inputs
from prism.models.load import ModelInfo
from prism.models.outputs import settle_form
from prism.output_form import FULL, OutputForm
from prism.perfmap import ClusterIdentity, PerformanceMap
from prism.plan import PRECISIONS, Objective, Plan, Precision
from prism.planner import Decision, Wanted
from prism.record import LinkState, Response, RunRecord

AUTO = "auto"
_FORMS_KEPT = 32


class DistributedModel:
    """A model that the nodes of a cluster have in memory.

    Made by `Cluster.load`. Requests may come from several threads: those whose plans need different
    nodes run at the same time, those that need the same node in the order in which they came.

    Args:
        number: of the model, in messages to the nodes.
        info: the model's description.
        dtype: dtype of the weights.
        live: the cluster.
        precisions: that the nodes keep it in; see `Cluster.load`.

    Attributes:
        info: the model's description.
        dtype: dtype of the weights.
        precisions: that plans may have: those that the nodes keep it in, or any where none were
            named.
        last_record: what the last answered request cost; None before the first.
        last_decision: how its plan was chosen; None when the caller named it.
        condition: how it is with the nodes now, to watch.
    """

    def __init__(
        self,
        number: int,
        info: ModelInfo,
        dtype: str,
        live: LiveCluster,
        precisions: Sequence[Precision] | None = None,
    ) -> None:
        self.info = info
        self.dtype = dtype
        self.precisions: tuple[Precision, ...] = tuple(precisions or PRECISIONS)
        self.last_record: RunRecord | None = None
        self.last_decision: Decision | None = None
        self._number = number
        self._live = live
        self._loaded = True
        self._nodes = ModelNodes(live.coordinator, number, info.source, dtype, precisions)
        self._experience = Experience(lambda: live.roster.alive)
        # It may take files to tell; a caller may ask for any number of best answers.
        self._settled = lru_cache(maxsize=_FORMS_KEPT)(partial(settle_form, info))
        self._placement = Placement(live.roster, self._nodes, self._experience)
        self.condition = Condition(live, self._nodes, self._experience)
        self._monitor: LinkMonitor | None = None
        self._nodes.load_everywhere()
        live.coordinator.follow(self._follow)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of configuration and weights; the same on all nodes that have the model."""
        return self._nodes.fingerprint

    @property
    def loaded(self) -> bool:
        """Whether it has not been unloaded."""
        return self._loaded

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that have the model in memory, in the cluster's order."""
        return self._nodes.ready(self._live.roster.alive)

    @property
    def memory(self) -> Mapping[str, Mapping[Precision, int]]:
        """By node, the bytes of its weights by precision; what precisions share counts in each."""
        return self._nodes.held()

    @property
    def left_out(self) -> dict[str, str]:
        """By name of a node that cannot have the model, the reason; it is asked again later."""
        return dict(self._nodes.refusals())

    def __call__(
        self,
        *,
        plan: Plan | str | None = None,
        objective: Objective | None = None,
        deadline_s: float | None = None,
        output: OutputForm | str = FULL,
        **inputs: Any,
    ) -> Any:
        """Run one request; `submit(...).result().output`, on the caller's own thread.

        Args:
            plan: how; `auto` lets the performance map decide; None is `auto` where a map is in
                use, else the first node.
            objective: what to choose a plan for; None = as told to `use_map`.
            deadline_s: longest time the answer is worth waiting for; None = as long as it takes.
            output: `full`, `logits`, `top_k`, `top_k:10` or `pooled`; see `prism.output_form`. The
                nodes make it, and nothing else travels.
            inputs: the model's inputs by name; pixels may be uint8, normalised on the nodes.

        Returns:
            The model's usual output, on the CPU; of `logits` one that holds nothing else; of
            `top_k` a `models.outputs.TopK`; of `pooled` a tensor `(B, D)` of float32.

        Raises:
            RequestError: the inputs do not fit the model, it has no such output, or it failed.
            PlanError: the plan does not fit the model or the cluster.
            UnsupportedPrecision: a node cannot compute at the plan's precision; says why.
            DeadlineExceeded: there was no answer in time.
            ClusterError: no node is left that could answer.
        """
        request = self._request(plan, objective, deadline_s, output, inputs)
        return self._noted(request, self._live.requests.answer(request)).output

    def submit(
        self,
        *,
        plan: Plan | str | None = None,
        objective: Objective | None = None,
        deadline_s: float | None = None,
        output: OutputForm | str = FULL,
        behind: int = 0,
        **inputs: Any,
    ) -> ResponseFuture:
        """Hand in one request, and go on; arguments as those of a call.

        One more, `behind`, says how many others the caller holds back until nodes are free: the
        planner counts them as waiting.

        Returns:
            The response to come. Its `cancel` drops the work on the nodes too; its result raises
            what a call raises, and `Cancelled`.

        Raises:
            RequestError: the inputs do not fit the model, or it has no such output.
            PlanError: the plan does not fit the model or the cluster.
            UnsupportedPrecision: a node cannot compute at the plan's precision; says why.
        """
        request = self._request(plan, objective, deadline_s, output, inputs, behind)
        return self._live.requests.submit(request, partial(self._noted, request))

    def use_map(
        self,
        perf: PerformanceMap | str | Path,
        *,
        objective: Objective | None = None,
        allow: Iterable[Plan | str] | None = None,
    ) -> None:
        """Let a performance map choose the plan of requests that name none.

        The map may cover more nodes than are alive; those that come later are taken in. What it
        does not say of accuracy is taken from `accuracy.json` beside the model. Precisions that its
        plans have are made in the background; such plans are chosen once nodes have them.

        Args:
            perf: the map, or the file it is in.
            objective: what to minimise, and the accuracy it may cost; None = latency, exact plans.
            allow: choose among these plans and `local` only, and use them even if they are lossy.

        Raises:
            MapError: the map is broken, or was measured on something else; or the nodes have
                dropped the float32 weights.
            ModelError: the table beside the model cannot be read.
        """
        if self._nodes.alone != "float32":
            raise MapError(
                f"a map compares every plan with local in float32, and the nodes keep "
                f"{self.info.source} in {', '.join(self.precisions)} only; add float32 to "
                f"`precisions`, or name plans"
            )
        if not isinstance(perf, PerformanceMap):
            perf = PerformanceMap.load(perf)
        known = perf.accuracy_by_shape
        table = accuracy_of(self.info.files, self.fingerprint)
        perf = perf.with_accuracy(each for each in table if each.plan not in known)
        plans = None if allow is None else [_named(plan) for plan in allow]
        adaptive = Adaptive(perf, self.identity(), objective, plans)
        self.close()
        self._experience.adaptive = adaptive
        self._nodes.want(dict.fromkeys(Plan.parse(shape).precision for shape in perf.by_shape))
        if len(perf.nodes) > 1:
            self._monitor = LinkMonitor(adaptive, self._live)

    def decide(
        self,
        *,
        objective: Objective | None = None,
        output: OutputForm | str = FULL,
        **inputs: Any,
    ) -> Decision:
        """Return the plan that a request would get, and why; runs nothing.

        Raises:
            PlanError: no performance map is in use.
            RequestError: the inputs do not fit the model, or it has no such output.
        """
        form = self._settled(OutputForm.of(output))
        batch, length = check_inputs(self.info, inputs)
        self._nodes.welcome(self._live.roster.alive)
        return self._choice(batch, length, objective, form)

    @property
    def link(self) -> LinkState:
        """What is believed about the link to the helpers: the slowest of them.

        Raises:
            PlanError: no performance map is in use.
        """
        return self._adapting().slowest_link

    def identity(self) -> ClusterIdentity:
        """Return what a performance map of this model on these nodes is bound to."""
        return identity_of(self._live, self._nodes, self.dtype)

    def close(self) -> None:
        """Stop watching the link. Safe to call twice."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def unload(self) -> None:
        """Let every node give the model's memory back. Safe to call twice.

        Requests under way are answered; later ones raise `ClusterError`.
        """
        self.close()
        self._loaded = False
        self._live.coordinator.unfollow(self._follow)
        self._nodes.unload()

    def _request(
        self,
        plan: Plan | str | None,
        objective: Objective | None,
        deadline_s: float | None,
        output: OutputForm | str,
        inputs: dict[str, Any],
        behind: int = 0,
    ) -> Request:
        """Check a request, and say how it is to run first."""
        if not self._loaded:
            raise ClusterError(f"{self.info.source} was unloaded; load it again")
        if deadline_s is not None and not deadline_s > 0:
            raise ConfigError(f"deadline_s must be above 0 s, not {deadline_s}")
        form = self._settled(OutputForm.of(output))
        batch, length = check_inputs(self.info, inputs)
        submitted_s = time.monotonic()
        until_s = math.inf if deadline_s is None else submitted_s + deadline_s
        adaptive = self._experience.adaptive
        decision = None
        if plan == AUTO or (plan is None and adaptive is not None):
            decision = self._choice(batch, length, objective, form, behind)
            placed = Placed(decision.choice.on(decision.nodes), decision.nodes)
        else:
            placed = self._placement.of(_named(plan), until_s)
        STRATEGIES[placed.plan.strategy].check(self.info, placed.plan, inputs, length)
        return Request(
            work=Work(self._number, self.info, inputs, batch, length, form),
            placed=placed,
            obstacle=self._placement.obstacle(placed, chosen=decision is not None),
            decision=decision,
            until_s=until_s,
            nodes=lambda: (self.nodes, self._live.roster.everyone),
            experience=self._experience,
            alone=self._nodes.alone,
            submitted_s=submitted_s,
        )

    def _choice(
        self,
        batch: int,
        length: int,
        objective: Objective | None,
        form: OutputForm,
        behind: int = 0,
    ) -> Decision:
        adaptive = self._adapting()
        ready = self.nodes
        if not ready:
            raise ClusterError("no node of the cluster is alive with this model; start it again")
        load = self._live.scheduler.load()
        covered = [node.name for node in self.identity().nodes if adaptive.covers(node)]
        return adaptive.choose(
            batch,
            length,
            [name for name in ready if name in covered] or ready,
            time.monotonic(),
            objective=objective,
            load=replace(load, waiting=load.waiting + behind),
            backoff=self._experience.paused(),
            lacking=self._nodes.lacking(ready),
            wanted=Wanted.of(form),
        )

    def _adapting(self) -> Adaptive:
        if self._experience.adaptive is None:
            raise PlanError(
                "plan auto needs a performance map; make one with prism profile and give it to "
                "use_map, or name a plan"
            )
        return self._experience.adaptive

    def _noted(self, request: Request, response: Response) -> Response:
        self.last_record, self.last_decision = response.record, request.decision
        return response

    def _follow(self, name: str, alive: bool) -> None:
        if alive:
            self._experience.cluster_changed()


def _named(plan: Plan | str | None) -> Plan:
    """Return the plan a caller named; nothing = the first node."""
    return Plan.parse(plan) if isinstance(plan, str) else plan or Plan()
