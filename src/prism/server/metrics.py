"""What the server counts, in Prometheus' words.

Labels have few values: models by name, routes as they were declared, plans by shape up to a number,
errors by class, nodes by name. What is true now (queue, links, nodes, pauses) is asked for when
somebody reads.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from prism.errors import PrismError
from prism.record import Response, RunRecord
from prism.server.conditions import Conditions, Waiting
from prism.server.served import Served

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0, 4.0)
_PARTS = ("compute", "staging", "comm", "input", "output", "queue")
# A client may name any plan there is.
_MOST_PLANS = 64
_OTHER = "other"


class Metrics:
    """Everything that is counted of one server; safe to use from all threads.

    Attributes:
        content_type: of the exposition, for HTTP.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._conditions = Conditions()
        self._registry.register(self._conditions)
        self._plans: set[str] = set()
        self._count_requests()
        self._count_runs()

    def exposition(self) -> bytes:
        """Return all of it as text, the way Prometheus reads it."""
        return generate_latest(self._registry)

    def watch(self, served: Served, waiting: Waiting) -> None:
        """Tell of a model's queue and nodes from now on.

        Args:
            served: the model.
            waiting: returns how many requests wait, and their rows.
        """
        self._conditions.watch(served, waiting)

    def request_ended(self, model: str, route: str, status: int, seconds: float) -> None:
        """Count a request that has its response.

        Args:
            model: of those served; empty where it has none.
            route: as it was declared, without what a client put in it.
            status: of HTTP.
            seconds: from its arrival to its response.
        """
        self._requests.labels(model, route, str(status)).inc()
        self._latency.labels(model, route).observe(seconds)

    def request_queued(self, model: str, seconds: float) -> None:
        """Count what a request waited for others."""
        self._queued.labels(model).observe(max(0.0, seconds))

    def batch_ended(self, model: str, rows: int, response: Response) -> None:
        """Count a batch that was answered.

        Args:
            model: by name.
            rows: of the batch.
            response: what it gave and cost.
        """
        record = response.record
        plan = self._plan_label(record.plan.shape)
        self._rows.labels(model).observe(rows)
        self._runs.labels(model, plan, record.outcome).inc()
        for part in _PARTS:
            self._parts.labels(model, part).inc(max(0.0, getattr(record, f"{part}_s")))
        self._count_bytes(model, record)
        self._count_energy(model, record)
        decision = response.decision
        if decision is not None and record.outcome == "ok":
            ran_s = record.total_s - record.queue_s
            self._predicted.labels(model).inc(decision.predicted_s)
            self._measured.labels(model).inc(ran_s)
            if ran_s > 0:
                self._ratio.labels(model).observe(decision.predicted_s / ran_s)

    def batch_failed(self, model: str, error: BaseException) -> None:
        """Count a batch that got no answer."""
        kind = type(error).__name__ if isinstance(error, PrismError) else _OTHER
        self._failures.labels(model, kind).inc()

    def batch_repeated(self, model: str) -> None:
        """Count a batch whose requests have to be run one by one."""
        self._repeated.labels(model).inc()

    def _count_requests(self) -> None:
        registry = self._registry
        self._requests = Counter(
            "prism_requests",
            "Requests that have their response.",
            ("model", "route", "status"),
            registry=registry,
        )
        self._latency = Histogram(
            "prism_request_seconds",
            "From a request's arrival to its response.",
            ("model", "route"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._queued = Histogram(
            "prism_queue_seconds",
            "What requests waited for others.",
            ("model",),
            buckets=(0.0005, *_SECONDS),
            registry=registry,
        )
        self._rows = Histogram(
            "prism_batch_rows", "Rows of batches.", ("model",), buckets=_ROWS, registry=registry
        )
        self._repeated = Counter(
            "prism_batches_repeated",
            "Batches whose requests were run one by one, since together they failed.",
            ("model",),
            registry=registry,
        )
        self._failures = Counter(
            "prism_batches_failed",
            "Batches without an answer, by the kind of error.",
            ("model", "kind"),
            registry=registry,
        )

    def _count_runs(self) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ("model", *labels), registry=self._registry)

        self._runs = counter(
            "prism_runs",
            "Batches answered, by the plan that ran and its outcome.",
            "plan",
            "outcome",
        )
        self._parts = counter(
            "prism_run_part_seconds", "What batches took on their first node, by part.", "part"
        )
        self._bytes = counter("prism_run_bytes", "Bytes between nodes, by what they are.", "what")
        self._energy = counter(
            "prism_energy_joules", "Energy of batches, by how it is known.", "quality"
        )
        self._predicted = counter(
            "prism_predicted_seconds", "What batches with a chosen plan were predicted to take."
        )
        self._measured = counter("prism_measured_seconds", "What the same batches took.")
        self._ratio = Histogram(
            "prism_predicted_over_measured",
            "Predicted over measured time of batches with a chosen plan.",
            ("model",),
            buckets=_RATIOS,
            registry=self._registry,
        )

    def _count_bytes(self, model: str, record: RunRecord) -> None:
        for each in (record, *record.per_node.values()):
            self._bytes.labels(model, "exchanged").inc(each.bytes_sent)
            self._bytes.labels(model, "input").inc(each.input_bytes)
            self._bytes.labels(model, "output").inc(each.output_bytes)

    def _count_energy(self, model: str, record: RunRecord) -> None:
        """Add up what different sensors read; those of one domain are the same one."""
        seen: set[str] = set()
        for each in (record, *record.per_node.values()):
            domain = each.energy_domain or each.node
            if each.energy_j is not None and domain not in seen:
                seen.add(domain)
                self._energy.labels(model, each.energy_quality or "unknown").inc(each.energy_j)

    def _plan_label(self, shape: str) -> str:
        if shape not in self._plans and len(self._plans) >= _MOST_PLANS:
            return _OTHER
        self._plans.add(shape)
        return shape
