"""What a program holds in its hands: a cluster, and models that run on it.

`Cluster.load` brings a model to every node; calling the result runs one request under one plan. A
request outlives the failure of a helper: it is answered by the nodes that are left.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from transformers import PreTrainedModel

from prism.cluster import control
from prism.cluster.dispatch import Answer, Dispatcher
from prism.cluster.head import Head
from prism.cluster.local import NodeProcess
from prism.cluster.node import EmulatedLink
from prism.core import Plan, RunRecord
from prism.errors import ClusterError, ConfigError, ModelError
from prism.models.inputs import check_inputs, check_plan
from prism.models.load import ModelInfo, describe

_LOAD_TIMEOUT_S = 900.0
# Before a plan has run once there is nothing to derive a deadline from.
_FIRST_TIMEOUT_S = 30.0
_LEAST_TIMEOUT_S = 2.0
_PATIENCE = 5.0  # a run may take so many times what it took before


class Cluster:
    """Nodes, alive or not, and the head that talks to them.

    A context manager: leaving it stops the node processes that were started here.

    Args:
        head: talks to the nodes.
        names: the nodes, the one on the head's own device first.
        processes: node processes started here.
        link: the emulated link of a local cluster.
        scratch: a directory that lives as long as the cluster.
    """

    def __init__(
        self,
        head: Head,
        names: Sequence[str],
        processes: Sequence[NodeProcess],
        scratch: TemporaryDirectory[str],
        link: EmulatedLink | None = None,
    ) -> None:
        self._head = head
        self._names = tuple(names)
        self._processes = tuple(processes)
        self._scratch = scratch
        self._link = link
        self._numbers = itertools.count(1)
        self._dispatcher = Dispatcher(head, self._names[0], link)
        self._busy = threading.Lock()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes alive, the one on the head's own device first."""
        for process in self._processes:
            if not process.running:
                self._head.report_lost(process.name, "its process ended")
        alive = self._head.alive
        ordered = [name for name in self._names if name in alive]
        return (*ordered, *(name for name in alive if name not in self._names))

    def pid(self, node: str) -> int:
        """Return the process id of a node, on its own machine."""
        return self._head.pid(node)

    def facts(self, node: str) -> control.NodeFacts:
        """Return what a node is and runs."""
        return self._head.facts(node)

    def load(self, model: str | Path | PreTrainedModel, dtype: str = "float32") -> DistributedModel:
        """Bring a model to every node.

        Args:
            model: a Hugging Face id, a directory, `random:NAME_OR_DIR`, or a model object.
            dtype: dtype of the weights.

        Raises:
            ModelError: it cannot be found or loaded on some node.
            UnsupportedModel: it cannot be partitioned; says why.
            ConfigError: nodes hold different weights.
        """
        if dtype not in ("float32", "float16", "bfloat16"):
            raise ModelError(f"unknown dtype {dtype!r}; use float32, float16 or bfloat16")
        number = next(self._numbers)
        if isinstance(model, PreTrainedModel):
            source = str(Path(self._scratch.name) / f"model{number}")
            model.save_pretrained(source)
        else:
            source = str(model)
        return DistributedModel(self, number, describe(source), dtype)

    def close(self) -> None:
        """Stop the node processes started here and release everything. Safe to call twice."""
        self._head.close()
        for process in self._processes:
            process.stop()
        if self._link is not None:
            self._link.medium.close()
        self._scratch.cleanup()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class DistributedModel:
    """A model every node of a cluster has in memory; call it like the model itself.

    Attributes:
        info: the model's description.
        last_record: what the last request cost; None before the first.
    """

    def __init__(self, cluster: Cluster, number: int, info: ModelInfo, dtype: str) -> None:
        self.info = info
        self.dtype = dtype
        self.fingerprint = ""
        self.last_record: RunRecord | None = None
        self._cluster = cluster
        self._number = number
        self._loaded: dict[str, int] = {}  # by node, the process that has it
        self._took_s: dict[tuple[str, int, int], float] = {}
        self._load_missing(cluster.nodes)

    def __call__(self, *, plan: Plan | str | None = None, **inputs: Any) -> Any:
        """Run one request.

        Args:
            plan: how; None = on the head's own device.
            inputs: the model's inputs by name; pixels may be uint8, normalised on the nodes.

        Returns:
            The model's usual output, on the CPU.

        Raises:
            RequestError: the inputs do not fit the model.
            PlanError: the plan does not fit the model or the cluster.
            ClusterError: no node is left that could answer.
        """
        batch, length = check_inputs(self.info, inputs)
        cluster = self._cluster
        with cluster._busy:
            alive = cluster.nodes
            if not alive:
                raise ClusterError("no node of the cluster is alive; start it again")
            wanted = Plan.parse(plan) if isinstance(plan, str) else plan or Plan()
            bound = wanted.on(alive)
            check_plan(self.info, bound, inputs, length)
            self._load_missing(bound.nodes)
            answer = self._answer(bound, inputs, batch, length)
        self.last_record = answer.record
        return answer.output

    def _answer(self, plan: Plan, inputs: dict[str, Any], batch: int, length: int) -> Answer:
        """Run the plan; if a node fails, run what can still be run."""
        cluster = self._cluster
        started_s = time.monotonic()
        try:
            return self._attempt(plan, inputs, batch, length)
        except ClusterError as error:
            failure = error
        for fallback in self._fallbacks(plan):
            cluster._head.new_epoch()
            try:
                self._load_missing(fallback.nodes)
                answer = self._attempt(fallback, inputs, batch, length)
            except ClusterError as error:
                failure = error
                continue
            total_s = time.monotonic() - started_s
            return replace(
                answer, record=replace(answer.record, outcome="recovered", total_s=total_s)
            )
        raise failure

    def _fallbacks(self, plan: Plan) -> Sequence[Plan]:
        """Yield plans for those who are left: once more together, then on each alone.

        A lossy plan is not made smaller: nobody measured the accuracy of the smaller one.
        """
        alive = self._cluster.nodes
        left = tuple(name for name in plan.nodes if name in alive)
        together = [replace(plan, nodes=left, shares=())]
        shrinks = plan.exact and 2 <= len(left) < plan.size
        alone = [Plan("local", nodes=(name,)) for name in alive]
        return [*(together if shrinks else []), *alone]

    def _attempt(self, plan: Plan, inputs: dict[str, Any], batch: int, length: int) -> Answer:
        key = (str(plan), batch, length)
        took_s = self._took_s.get(key)
        timeout_s = _FIRST_TIMEOUT_S
        if took_s is not None:
            timeout_s = max(_LEAST_TIMEOUT_S, _PATIENCE * took_s)
        answer = self._cluster._dispatcher.run(self._number, inputs, plan, batch, timeout_s)
        self._took_s[key] = answer.record.total_s
        return answer

    def _load_missing(self, names: Sequence[str]) -> None:
        """Have the model loaded by those of `names` whose process does not have it yet."""
        head = self._cluster._head
        missing = [name for name in names if self._loaded.get(name) != head.pid(name)]
        if not missing:
            return
        call = head.call()
        message = control.Load(
            request=call.request, model=self._number, source=self.info.source, dtype=self.dtype
        )
        try:
            for name in missing:
                head.send(name, message)
            deadline_s = time.monotonic() + _LOAD_TIMEOUT_S
            while missing:
                name, loaded, _ = head.answer(call, deadline_s, missing)
                self._check_fingerprint(name, loaded.fingerprint)
                self._loaded[name] = head.pid(name)
                missing.remove(name)
        finally:
            head.end(call)

    def _check_fingerprint(self, name: str, fingerprint: str) -> None:
        if not self.fingerprint:
            self.fingerprint = fingerprint
        elif fingerprint != self.fingerprint:
            first = next(iter(self._loaded))
            raise ConfigError(
                f"{name} holds another model than {first}: {fingerprint[:12]} against "
                f"{self.fingerprint[:12]}; copy the same {self.info.source} to both"
            )
