"""The choice per request: a performance map, the live link, and an objective.

The only place where the planner and real runs meet: decisions go down to the dispatcher, records
come up and refresh what is believed about the link.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prism.perfmap import ClusterIdentity, PerformanceMap
from prism.plan import Objective, Plan
from prism.planner import CostModel, Decision, LinkEstimate, LinkSample, Planner
from prism.record import RunRecord

# A probe should be long enough to time and short enough not to be noticed.
_PROBE_S = 0.01
_LEAST_PROBE_BYTES, _MOST_PROBE_BYTES = 8_000, 400_000


class Adaptive:
    """Chooses plans for one model on one cluster.

    Args:
        perf: the map.
        identity: what is running; the map must have been measured on it.
        objective: what to minimise, and the accuracy it may cost; None = latency, exact.
        allow: choose among these plans and `local` only, lossy ones included.

    Raises:
        MapError: the map belongs to something else; names the difference.

    Attributes:
        link: what is believed about the link.
    """

    def __init__(
        self,
        perf: PerformanceMap,
        identity: ClusterIdentity,
        objective: Objective | None = None,
        allow: Iterable[Plan] | None = None,
    ) -> None:
        perf.check(identity)
        self.link = LinkEstimate(perf.link.state())
        self._model = CostModel(perf)
        self._planner = Planner(self._model)
        self._objective = objective or Objective()
        self._allow = None if allow is None else tuple(allow)
        self._known = frozenset(node.name for node in perf.nodes)

    def choose(self, batch: int, length: int, alive: Sequence[str]) -> Decision:
        """Return the plan for one request, and the field it was chosen from."""
        known = [name for name in alive if name in self._known]
        if known and known[0] != self._model.first:
            return self._without_head(batch, length, known)
        return self._planner.decide(
            batch,
            length,
            self.link.state,
            alive=known,
            objective=self._objective,
            allow=self._allow,
        )

    def _without_head(self, batch: int, length: int, known: Sequence[str]) -> Decision:
        """Return the quickest node left; every other comparison of a map is with its first."""
        alone = [Plan("local", (name,)) for name in known]
        times_s = {
            plan: self._model.predict(plan, batch, length, self.link.state).total_s
            for plan in alone
        }
        choice = min(alone, key=times_s.__getitem__)
        return Decision(choice, times_s[choice], ())

    def observe(self, record: RunRecord, now_s: float) -> None:
        """Learn about the link from a run."""
        sample = self._model.link_sample(record)
        if sample is not None:
            self.link = self.link.with_run(sample, now_s)

    def probe_due(self, now_s: float) -> bool:
        """Whether no run has told anything about the link for a while."""
        return self.link.probe_due(now_s)

    @property
    def probe_sizes(self) -> tuple[int, ...]:
        """Bytes to send, in turn, until one takes a moment.

        The last one does at the bandwidth believed in; on a link that has failed since, it would
        keep requests waiting for seconds, and the first one is enough.
        """
        wanted = int(_PROBE_S * self.link.state.bandwidth_bps / 8)
        if wanted <= _LEAST_PROBE_BYTES:
            return (_LEAST_PROBE_BYTES,)
        return _LEAST_PROBE_BYTES, min(_MOST_PROBE_BYTES, wanted)

    def probed(self, nbytes: int, short_s: float, long_s: float, now_s: float) -> None:
        """Learn from a probe: a round trip with next to nothing, and one with `nbytes` to there."""
        latency_s = short_s / 2
        transfer_s = max(long_s - short_s, 1e-6)
        sample = LinkSample(8.0 * nbytes, transfer_s + latency_s)
        self.link = self.link.with_probe(sample, latency_s, now_s)
