"""One batch of the server: the requests in it, and what it becomes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch

from prism.coordinator.requests import ResponseFuture
from prism.output_form import OutputForm
from prism.plan import Objective
from prism.planner import Decision
from prism.record import Response
from prism.server.buckets import Signature, join_inputs
from prism.server.cutting import Part
from prism.server.served import Served
from prism.server.work import Answered


class Key(NamedTuple):
    """What requests must have in common to be one batch.

    Attributes:
        signature: of their inputs; None = this one stays alone.
        plan: text of the plan that they name, `auto`, or None.
        objective: that they name.
        output: its form.
        alone: number of the only request with this key; 0 = there may be others.
    """

    signature: Signature | None
    plan: str | None
    objective: Objective | None
    output: OutputForm
    alone: int = 0


@dataclass(eq=False, slots=True)
class Job:
    """One accepted request.

    Attributes:
        number: rising in the order of arrival.
        inputs: checked.
        rows: of its inputs.
        length: in tokens.
        key: what others must have to join it.
        arrived_s, until_s: on `time.monotonic()`; infinity = it waits as long as it takes.
        answer: to come.
    """

    number: int
    inputs: Mapping[str, torch.Tensor]
    rows: int
    length: int
    key: Key
    arrived_s: float
    until_s: float
    answer: asyncio.Future[Answered]

    def succeed(self, answered: Answered) -> None:
        """Answer it, if anybody waits."""
        if not self.answer.done():
            self.answer.set_result(answered)

    def fail(self, error: BaseException) -> None:
        """End it with an error, if anybody waits."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(slots=True)
class Retry:
    """The requests of a failed batch, each run by itself.

    Attributes:
        left: that have not ended.
        failed: whether one of them failed again.
    """

    left: int
    failed: bool = False

    def blames_joining(self, worked: bool) -> bool:
        """Count one that ended; return whether it was the last, and all of them worked."""
        self.left -= 1
        self.failed = self.failed or not worked
        return not self.left and not self.failed


class Batch:
    """Requests of one key, run as one.

    Args:
        jobs: at least one.
        retry: of which failed batch they are a part; None = of none.

    Attributes:
        jobs, retry: the same.
        key: of all requests.
        rows: of all requests.
        response: to come from the cluster; None before the batch was handed in.
    """

    def __init__(self, jobs: tuple[Job, ...], retry: Retry | None = None) -> None:
        self.jobs = jobs
        self.retry = retry
        self.key = jobs[0].key
        self.rows = sum(job.rows for job in jobs)
        self.response: ResponseFuture | None = None
        self._length = 0
        self._submitted_s = 0.0

    @property
    def nodes(self) -> tuple[str, ...]:
        """On which it runs; none before they are known."""
        return () if self.response is None else self.response.nodes

    def submit(self, served: Served, behind: int) -> ResponseFuture:
        """Hand the batch in. It may take a while: call it on a thread of its own.

        Args:
            served: the model.
            behind: batches that wait for this one.

        Raises:
            InputError: the inputs, the plan or the output do not fit the model.
            ClusterError: no node is left.
        """
        inputs, self._length = join_inputs(served.info, [job.inputs for job in self.jobs])
        self._submitted_s = time.monotonic()
        # Each request watches its own time; the batch has that of the most patient one.
        left_s = max(job.until_s for job in self.jobs) - self._submitted_s
        return served.model.submit(
            plan=self.key.plan,
            objective=self.key.objective,
            deadline_s=None if math.isinf(left_s) else max(left_s, 1e-3),
            output=self.key.output,
            behind=behind,
            **inputs,
        )

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for one of its answers."""
        return not all(job.answer.done() for job in self.jobs)

    def drop_if_unwanted(self) -> None:
        """Let the nodes drop it once nobody waits for any of its answers."""
        if self.response is not None and not self.wanted:
            self.response.cancel()

    def parts(self, response: Response) -> list[Answered]:
        """Return what each request gets of the answer.

        Raises:
            Uncuttable: it cannot be told what belongs to whom.
        """
        if len(self.jobs) == 1:
            return [self._answered(self.jobs[0], response, response.output)]
        answers, start = [], 0
        for job in self.jobs:
            part = Part(start, start + job.rows, self.rows, job.length, self._length)
            answers.append(self._answered(job, response, part.of(response.output)))
            start += job.rows
        return answers

    def _answered(self, job: Job, response: Response, output: Any) -> Answered:
        return Answered(
            output=output,
            record=response.record,
            decision=cast("Decision | None", response.decision),
            queue_s=self._submitted_s - job.arrived_s + response.record.queue_s,
            rows=self.rows,
        )
