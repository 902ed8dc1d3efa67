"""The choice per request: a performance map, the live links and nodes, and an objective.

The only place where the planner and real runs meet: decisions go down to the requests, records come
up and refresh what is believed about every link and every node.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from prism.errors import PlanError
from prism.perfmap import ClusterIdentity, NodeInfo, PerformanceMap
from prism.plan import Objective, Plan
from prism.planner import (
    WHOLE,
    ComputeEstimate,
    CostModel,
    Decision,
    ImageCoding,
    Lacking,
    LeftOut,
    LinkEstimate,
    Links,
    LinkSample,
    Load,
    Planner,
    Wanted,
)
from prism.record import LinkState, RunRecord

# A probe should be long enough to time and short enough not to be noticed.
_PROBE_S = 0.01
_LEAST_PROBE_BYTES, _MOST_PROBE_BYTES = 8_000, 400_000
# Forms of output whose planners are kept; a caller may ask for any number of best answers.
_FORMS_KEPT = 8


class Adaptive:
    """Chooses plans for one model on one cluster; safe to use from all threads.

    Args:
        perf: the map.
        identity: what is running; the map must have been measured on it.
        objective: what to minimise, and the accuracy it may cost; None = latency, exact.
        allow: choose among these plans and `local` only, lossy ones included.

    Raises:
        MapError: the map belongs to something else; names the difference.
    """

    def __init__(
        self,
        perf: PerformanceMap,
        identity: ClusterIdentity,
        objective: Objective | None = None,
        allow: Iterable[Plan] | None = None,
    ) -> None:
        perf.check(identity)
        self._model = CostModel(perf)
        # Each form of output has its own best plans.
        self._planner_for = lru_cache(maxsize=_FORMS_KEPT)(self._made_planner)
        self._objective = objective or Objective()
        self._allow = None if allow is None else tuple(allow)
        self._nodes = {node.name: node for node in perf.nodes}
        self._links = {
            node.name: LinkEstimate(perf.link.state())
            for node in perf.nodes
            if node.name != self._model.first
        }
        self._coding = {each.node: each for each in perf.coding}
        self._computes: dict[str, ComputeEstimate] = {}
        self._lock = threading.Lock()

    def covers(self, node: NodeInfo) -> bool:
        """Whether a node is one of those the map was measured on."""
        return self._nodes.get(node.name) == node

    def choose(
        self,
        batch: int,
        length: int,
        alive: Sequence[str],
        now_s: float,
        *,
        objective: Objective | None = None,
        load: Load | None = None,
        backoff: Mapping[str, str] | None = None,
        lacking: Lacking | None = None,
        wanted: Wanted = WHOLE,
    ) -> Decision:
        """Return the plan for one request, and the field it was chosen from.

        Args:
            batch: samples.
            length: tokens per sample.
            alive: nodes that could work on it, in the cluster's order.
            now_s: on `time.monotonic()`.
            objective: instead of the one given at first.
            load: what the nodes still have to do.
            backoff: why plans, by shape, and nodes are left alone for now.
            lacking: by node, at which precisions it does not have the model now, and why.
            wanted: the form of output that the request wants.
        """
        known = [name for name in alive if name in self._nodes]
        if not known:
            missing = LeftOut("auto", f"the map covers none of {', '.join(alive)}")
            return Decision(Plan("local", (alive[0],)), (alive[0],), 0.0, (), (missing,))
        with self._lock:
            return self._planner_for(wanted).decide(
                batch,
                length,
                self._live_links(),
                alive=known,
                objective=objective or self._objective,
                allow=self._allow,
                load=load,
                slowdown=self._slowdown(now_s),
                backoff=backoff,
                lacking=lacking,
            )

    def predicted_s(
        self,
        plan: Plan,
        nodes: Sequence[str],
        batch: int,
        length: int,
        now_s: float,
        wanted: Wanted = WHOLE,
    ) -> float | None:
        """Return what a plan is predicted to take now; None where the map does not cover it."""
        if not set(nodes) <= set(self._nodes):
            return None
        with self._lock:
            links, slowdown = self._live_links(), self._slowdown(now_s)
            model = self._planner_for(wanted).model
        try:
            return model.predict(plan, batch, length, links, slowdown).total_s
        except PlanError:
            return None

    def image_codings(self, nodes: Sequence[str]) -> dict[str, ImageCoding]:
        """Return by helper what decides whether images are compressed on their way there now.

        Helpers of which the map does not tell are absent, and so is the first node.
        """
        home = self._coding.get(self._model.first)
        if home is None:
            return {}
        with self._lock:
            links = {name: self._links[name].state for name in nodes if name in self._links}
        return {
            name: ImageCoding(
                link, home.compress_per_byte_s, self._coding[name].decompress_per_byte_s
            )
            for name, link in links.items()
            if name in self._coding
        }

    @property
    def slowest_link(self) -> LinkState:
        """What is believed about the link to the helper that is reached worst."""
        with self._lock:
            states = [estimate.state for estimate in self._links.values()]
        return min(states or [self._model.map.link.state()], key=lambda state: state.bandwidth_bps)

    @property
    def links(self) -> dict[str, LinkState]:
        """What is believed about the link to every helper, by its name."""
        with self._lock:
            return {name: estimate.state for name, estimate in self._links.items()}

    def observe(self, record: RunRecord, now_s: float, *, alone: bool = True) -> None:
        """Learn from a run.

        Args:
            record: what it cost.
            now_s: on `time.monotonic()`.
            alone: whether no other request was running, so that the links had nothing else to do.
        """
        ratios = self._model.compute_samples(record)
        with self._lock:
            samples = self._model.link_samples(record, self._live_links()) if alone else {}
            for name, ratio in ratios.items():
                before = self._computes.get(name, ComputeEstimate())
                self._computes[name] = before.with_run(ratio, now_s)
            for name in samples.keys() & self._links.keys():
                self._links[name] = self._links[name].with_run(samples[name], now_s)

    def observe_timeout(
        self,
        plan: Plan,
        nodes: Sequence[str],
        batch: int,
        length: int,
        waited_s: float,
        now_s: float,
    ) -> None:
        """Learn from a run that was given up after `waited_s`."""
        with self._lock:
            slowdown = self._slowdown(now_s)
            slowest = max((slowdown.get(name, 1.0) for name in nodes), default=1.0)
            sample = self._model.timeout_sample(plan, batch, length, waited_s, slowest)
            helpers = [name for name in nodes if name in self._links]
            if sample is not None and helpers:
                # Of several links, the one that holds up the others.
                worst = min(helpers, key=lambda name: self._links[name].state.bandwidth_bps)
                self._links[worst] = self._links[worst].with_run(sample, now_s)

    def probe_due(self, helper: str, now_s: float) -> bool:
        """Whether nothing has told anything about the link to a helper for a while."""
        with self._lock:
            estimate = self._links.get(helper)
        return estimate is not None and estimate.probe_due(now_s)

    def probe_sizes(self, helper: str) -> tuple[int, ...]:
        """Return bytes to send, in turn, until one takes a moment.

        The last one does at the bandwidth believed in; on a link that has failed since, it would
        hold the link for seconds, and the first one is enough.
        """
        with self._lock:
            wanted = int(_PROBE_S * self._links[helper].state.bandwidth_bps / 8)
        if wanted <= _LEAST_PROBE_BYTES:
            return (_LEAST_PROBE_BYTES,)
        return _LEAST_PROBE_BYTES, min(_MOST_PROBE_BYTES, wanted)

    def probed(self, helper: str, nbytes: int, short_s: float, long_s: float, now_s: float) -> None:
        """Learn from a probe: a round trip with next to nothing, and one with `nbytes` to there."""
        latency_s = short_s / 2
        transfer_s = max(long_s - short_s, 1e-6)
        sample = LinkSample(8.0 * nbytes, transfer_s + latency_s)
        with self._lock:
            self._links[helper] = self._links[helper].with_probe(sample, latency_s, now_s)

    def _made_planner(self, wanted: Wanted) -> Planner:
        whole = wanted == WHOLE
        return Planner(self._model if whole else CostModel(self._model.map, wanted))

    def _live_links(self) -> Links:
        states = {name: estimate.state for name, estimate in self._links.items()}
        return Links(self._model.map.link.state(), states)

    def _slowdown(self, now_s: float) -> Mapping[str, float]:
        return {name: each.factor_at(now_s) for name, each in self._computes.items()}
