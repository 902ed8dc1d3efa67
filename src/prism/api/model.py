"""A model on all nodes of a cluster, and a request that outlives the failure of a node.

An attempt runs one plan. When it fails because of the machines, not of the request, the same
request is answered by the nodes that are left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prism.control import messages as control
from prism.coordinator.adaptive import Adaptive
from prism.coordinator.coordinator import Coordinator
from prism.coordinator.deadlines import Deadline, Pace
from prism.coordinator.dispatch import Answer, Dispatcher
from prism.coordinator.link_monitor import LinkWatch
from prism.coordinator.link_timing import LinkTimer
from prism.coordinator.roster import Placed, Roster
from prism.errors import ClusterError, ConfigError, PeerLost, PlanError
from prism.models.inputs import check_inputs, check_plan
from prism.models.load import ModelInfo
from prism.perfmap import ClusterIdentity, NodeInfo, PerformanceMap
from prism.plan import Objective, Plan
from prism.planner import Decision
from prism.record import LinkState, RunRecord

AUTO = "auto"
_LOAD_TIMEOUT_S = 900.0


class DistributedModel:
    """A model every node of a cluster has in memory; call it like the model itself.

    Made by `Cluster.load`. Requests from several threads take turns.

    Args:
        number: of the model, in messages to the nodes.
        info: the model's description.
        dtype: dtype of the weights.
        coordinator: talks to the nodes.
        roster: knows the nodes.
        dispatcher: runs one attempt.
        timer: times the link.
        turn: held by the request that is being answered.

    Attributes:
        info: the model's description.
        dtype: dtype of the weights.
        fingerprint: of the weights; the same on all nodes.
        last_record: what the last request cost; None before the first.
        last_decision: how its plan was chosen; None when the caller named it.
    """

    def __init__(
        self,
        number: int,
        info: ModelInfo,
        dtype: str,
        *,
        coordinator: Coordinator,
        roster: Roster,
        dispatcher: Dispatcher,
        timer: LinkTimer,
        turn: threading.Lock,
    ) -> None:
        self.info = info
        self.dtype = dtype
        self.fingerprint = ""
        self.last_record: RunRecord | None = None
        self.last_decision: Decision | None = None
        self._number = number
        self._coordinator = coordinator
        self._roster = roster
        self._dispatcher = dispatcher
        self._timer = timer
        self._turn = turn
        self._adaptive: Adaptive | None = None
        self._watch: LinkWatch | None = None
        self._loaded: dict[str, str] = {}  # by node, the process that has it
        self._pace = Pace()
        self._load_everywhere()

    def __call__(self, *, plan: Plan | str | None = None, **inputs: Any) -> Any:
        """Run one request.

        Args:
            plan: how; `auto` lets the performance map decide; None is `auto` where a map is in
                use, else the coordinator's own device.
            inputs: the model's inputs by name; pixels may be uint8, normalised on the nodes.

        Returns:
            The model's usual output, on the CPU.

        Raises:
            RequestError: the inputs do not fit the model.
            PlanError: the plan does not fit the model or the cluster.
            ClusterError: no node is left that could answer.
        """
        batch, length = check_inputs(self.info, inputs)
        with self._turn:
            decision = self._decision(plan, batch, length)
            wanted = decision.choice if decision else _named(plan)
            placed = self._roster.place(wanted)
            check_plan(self.info, placed.plan, inputs, length)
            answer = self._answer(placed, inputs, batch, length)
            if self._adaptive is not None:
                self._adaptive.observe(answer.record, time.monotonic())
            self.last_record, self.last_decision = answer.record, decision
        return answer.output

    def use_map(
        self,
        perf: PerformanceMap | str | Path,
        *,
        objective: Objective | None = None,
        allow: Iterable[Plan | str] | None = None,
    ) -> None:
        """Let a performance map choose the plan of requests that name none.

        Args:
            perf: the map, or the file it is in.
            objective: what to minimise, and the accuracy it may cost; None = latency, exact plans.
            allow: choose among these plans and `local` only, and use them even if they are lossy.

        Raises:
            MapError: the map is broken, or was measured on something else.
        """
        if not isinstance(perf, PerformanceMap):
            perf = PerformanceMap.load(perf)
        plans = None if allow is None else [_named(plan) for plan in allow]
        adaptive = Adaptive(perf, self.identity(), objective, plans)
        self.close()
        self._adaptive = adaptive
        if len(perf.nodes) > 1:
            self._watch = LinkWatch(
                adaptive, self._timer, lambda: self._roster.alive[1:], self._turn
            )

    def decide(self, **inputs: Any) -> Decision:
        """Return the plan that a request would get, and why; runs nothing.

        Raises:
            PlanError: no performance map is in use.
        """
        batch, length = check_inputs(self.info, inputs)
        with self._turn:
            decision = self._decision(AUTO, batch, length)
        assert decision is not None
        return decision

    @property
    def link(self) -> LinkState:
        """What is believed about the link to the helpers.

        Raises:
            PlanError: no performance map is in use.
        """
        return self._adapting().link.state

    def identity(self) -> ClusterIdentity:
        """Return what a performance map of this model on these nodes is bound to."""
        facts = {name: self._coordinator.hello(name).facts for name in self._roster.alive}
        nodes = (
            NodeInfo(
                name=name,
                hardware=each.hardware,
                torch=each.torch,
                transformers=each.transformers,
                dtype=self.dtype,
                threads=each.threads,
            )
            for name, each in facts.items()
        )
        return ClusterIdentity(self.fingerprint, tuple(nodes))

    def close(self) -> None:
        """Stop watching the link. Safe to call twice."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _decision(self, plan: Plan | str | None, batch: int, length: int) -> Decision | None:
        """Return how the plan of a request was chosen; None where the caller named it."""
        if plan == AUTO or (plan is None and self._adaptive is not None):
            return self._adapting().choose(batch, length, self._roster.alive)
        return None

    def _adapting(self) -> Adaptive:
        if self._adaptive is None:
            raise PlanError(
                "plan auto needs a performance map; make one with prism profile and give it to "
                "use_map, or name a plan"
            )
        return self._adaptive

    def _answer(self, placed: Placed, inputs: dict[str, Any], batch: int, length: int) -> Answer:
        """Run the plan; if a node fails, run what can still be run."""
        started_s, stuck_s = time.monotonic(), 0.0
        failure: ClusterError | None = None
        for candidate in self._candidates(placed):
            deadline = self._pace.deadline(str(candidate.plan), batch, length).later(stuck_s)
            try:
                answer = self._attempt(candidate, inputs, batch, deadline)
            except ClusterError as error:
                failure = error
                # Those who are left may still be waiting for the one who failed.
                stuck_s += deadline.exchange_s
                continue
            if failure is None:
                self._pace.note(str(placed.plan), batch, length, answer.record.total_s)
                return answer
            total_s = time.monotonic() - started_s
            record = replace(answer.record, outcome="recovered", total_s=total_s)
            return replace(answer, record=record)
        assert failure is not None
        if self._roster.alive:
            raise failure
        raise ClusterError(f"no node is left to answer ({failure}); start the cluster again")

    def _candidates(self, placed: Placed) -> Iterator[Placed]:
        """Yield the plan, and after it has failed what those who are left can do."""
        yield placed
        yield from self._fallbacks(placed)

    def _fallbacks(self, placed: Placed) -> Sequence[Placed]:
        """Return plans for those who are left: once more together, then on each alone.

        A lossy plan is not made smaller: nobody measured the accuracy of the smaller one.
        """
        alive = self._roster.alive
        plan = placed.plan
        alone = [Plan("local", nodes=(name,)) for name in alive]
        left = [name for name in placed.nodes if name in alive]
        together = []
        if plan.exact and 2 <= len(left) < plan.size:
            shares = dict(zip(placed.nodes, plan.shares, strict=False))
            kept = tuple(shares[name] for name in left) if any(map(shares.get, left)) else ()
            together = [replace(plan, nodes=tuple(left), count=0, shares=kept)]
        return [Placed(each, each.nodes) for each in (*together, *alone) if each != plan]

    def _attempt(
        self, placed: Placed, inputs: dict[str, Any], batch: int, deadline: Deadline
    ) -> Answer:
        self._load_missing(placed.nodes)
        return self._dispatcher.run(self._number, inputs, placed, batch, deadline)

    def _load_everywhere(self) -> None:
        """Load on all nodes; one that dies meanwhile is left out."""
        while True:
            alive = self._roster.alive
            try:
                self._load_missing(alive)
                return
            except PeerLost:
                if not self._roster.alive:
                    raise

    def _load_missing(self, names: Sequence[str]) -> None:
        """Have the model loaded by those of `names` whose process does not have it yet."""
        processes = {name: self._coordinator.hello(name).instance for name in names}
        missing = [name for name in names if self._loaded.get(name) != processes[name]]
        if not missing:
            return
        call = self._coordinator.call()
        message = control.Load(
            request=call.request, model=self._number, source=self.info.source, dtype=self.dtype
        )
        try:
            for name in missing:
                self._coordinator.send(name, message)
            deadline_s = time.monotonic() + _LOAD_TIMEOUT_S
            while missing:
                name, loaded, _ = self._coordinator.answer(call, deadline_s, missing)
                self._check_fingerprint(name, loaded.fingerprint)
                self._loaded[name] = processes[name]
                missing.remove(name)
        finally:
            self._coordinator.end(call)

    def _check_fingerprint(self, name: str, fingerprint: str) -> None:
        if not self.fingerprint:
            self.fingerprint = fingerprint
        elif fingerprint != self.fingerprint:
            first = next(iter(self._loaded))
            raise ConfigError(
                f"{name} holds another model than {first}: {fingerprint[:12]} against "
                f"{self.fingerprint[:12]}; copy the same {self.info.source} to both"
            )


def _named(plan: Plan | str | None) -> Plan:
    """Return the plan a caller named; nothing = the coordinator's own device."""
    return Plan.parse(plan) if isinstance(plan, str) else plan or Plan()
