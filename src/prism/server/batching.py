"""Between the requests of one model and the cluster: they are joined, given their turn, cut back.

    a request comes        checked, and put in the queue; nothing else happens to the others
    a node is free         whose turn it is leads a batch; others join it, a share per free node
    no node is free        what waits grows together until one is: so the delay adapts to the load,
                           and a lone request on idle nodes starts at once
    the batch ends         every request gets its rows; one that failed is run again request by
                           request, so that nobody pays for another one's mistake

A plan that a request names is given one batch at a time, since a second one needs the same nodes.
Everything here runs on the event loop; only handing in, which may take a while, does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Hashable, Mapping
from concurrent.futures import Future

import torch

from prism.errors import Cancelled, DeadlineExceeded, InputError, RequestError
from prism.models.inputs import check_inputs
from prism.plan import Plan
from prism.record import Response
from prism.server.batch import Batch, Job, Key, Retry
from prism.server.buckets import Signature, signature_of
from prism.server.cutting import Uncuttable
from prism.server.errors import Busy
from prism.server.fairness import Entry, Line
from prism.server.free_nodes import FreeNodes
from prism.server.metrics import Metrics
from prism.server.served import Served
from prism.server.throughput import Throughput
from prism.server.work import Answered, Wish

AUTO = "auto"
# Another model's work ends unseen: how soon and how late its nodes are looked at again.
_SOONEST_S, _LATEST_S = 0.001, 0.02


class Batcher:
    """Answers the requests of one model; used from one event loop.

    Args:
        served: the model.
        metrics: told of every batch and what waits.
        queue_rows: most rows that wait; a request of more is taken when nothing else waits.
        most_rows: of a joined batch.
    """

    def __init__(
        self, served: Served, metrics: Metrics, *, queue_rows: int = 256, most_rows: int = 32
    ) -> None:
        self._served = served
        self._metrics = metrics
        self._queue_rows = queue_rows
        self._most_rows = most_rows
        self._numbers = itertools.count(1)
        self._line = Line()
        self._waiting: dict[int, Job] = {}
        self._open: set[Job] = set()
        self._running: set[Batch] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._look_again: asyncio.TimerHandle | None = None
        # Kinds of inputs that fail together and work one by one.
        self._apart: set[Signature | None] = set()
        self._throughput = Throughput()
        self._free = FreeNodes(served.model.condition)
        self._draining = False
        metrics.watch(served, lambda: (len(self._line), self._line.rows))

    @property
    def waiting(self) -> int:
        """Requests that have not been handed to the cluster."""
        return len(self._line)

    async def infer(self, inputs: Mapping[str, torch.Tensor], wish: Wish) -> Answered:
        """Answer one request. Cancelling the task that waits here cancels its work.

        Args:
            inputs: of the model by name; with the same number of rows.
            wish: what else it wants.

        Raises:
            RequestError: the inputs do not fit the model, it has no such output, or it failed.
            PlanError: the plan does not fit the model or the cluster.
            DeadlineExceeded: there was no answer in time.
            ClusterError: no node is left that could answer.
            Busy: too much waits already, or the server is stopping.
        """
        job = self._admitted(inputs, wish)
        try:
            self._start_due()
            left_s = job.until_s - time.monotonic()
            await asyncio.wait({job.answer}, timeout=None if math.isinf(left_s) else left_s)
            if not job.answer.done():
                raise _too_late(job)
            return job.answer.result()
        finally:
            self._left(job)

    async def drain(self, timeout_s: float) -> None:
        """Take no new requests, and wait until all accepted ones are answered.

        What is not answered by then ends with `Cancelled`.

        Args:
            timeout_s: longest wait.
        """
        self._draining = True
        answers = {job.answer for job in self._open}
        if answers:
            await asyncio.wait(answers, timeout=timeout_s)
        for job in [*self._open]:
            job.fail(Cancelled("the server stopped before it could answer; send it again"))
        for batch in self._running:
            batch.drop_if_unwanted()
        if self._look_again is not None:
            self._look_again.cancel()

    def _admitted(self, inputs: Mapping[str, torch.Tensor], wish: Wish) -> Job:
        """Check a request, and put it in the queue."""
        if self._draining:
            raise Busy(1.0, "the server is stopping; send the request to another one, or later")
        info, now_s = self._served.info, time.monotonic()
        rows, length = check_inputs(info, inputs)
        if wish.deadline_s is not None and not wish.deadline_s > 0:
            raise RequestError(f"the deadline must be above 0 s, not {wish.deadline_s}")
        waiting_rows = self._line.rows
        if waiting_rows and waiting_rows + rows > self._queue_rows:
            raise Busy(self._throughput.retry_after_s(waiting_rows, now_s))
        number = next(self._numbers)
        signature = signature_of(info, inputs)
        if signature in self._apart:
            signature = None
        key = Key(
            signature,
            AUTO if wish.plan == AUTO else wish.plan and str(Plan.parse(wish.plan)),
            wish.objective,
            wish.output,
            alone=number if signature is None else 0,
        )
        until_s = math.inf if wish.deadline_s is None else now_s + wish.deadline_s
        answer = asyncio.get_running_loop().create_future()
        job = Job(number, inputs, rows, length, key, now_s, until_s, answer)
        self._open.add(job)
        self._waiting[number] = job
        self._line = self._line.added(Entry(number, wish.client, key, rows, until_s))
        return job

    def _left(self, job: Job) -> None:
        """Forget a request that is answered, or that nobody waits for any more."""
        if job not in self._open:
            return
        self._open.discard(job)
        if self._waiting.pop(job.number, None) is not None:
            self._line = self._line.without({job.number})
        job.answer.cancel()
        for batch in self._running:
            if job in batch.jobs:
                batch.drop_if_unwanted()

    def _start_due(self) -> None:
        """Start every batch whose time has come."""
        for entry in self._line.expired(time.monotonic()):
            job = self._waiting.pop(entry.number)
            job.fail(_too_late(job))
            self._line = self._line.without({entry.number})
        while entries := self._line.next(self._limit):
            self._line = self._line.served(entries)
            self._start(Batch(tuple(self._waiting.pop(entry.number) for entry in entries)))
        if self._line and self._look_again is None:
            self._watch_other_models()

    def _watch_other_models(self) -> None:
        """Look again when their nodes may be free; the end of own batches is heard of."""

        def look() -> None:
            self._look_again = None
            self._start_due()

        own = {name for batch in self._running for name in batch.nodes}
        busy = self._served.model.condition.load.free_in_s
        others_s = [free_in_s for name, free_in_s in busy.items() if name not in own]
        if others_s:
            delay_s = min(_LATEST_S, max(_SOONEST_S, min(others_s)))
            self._look_again = asyncio.get_running_loop().call_later(delay_s, look)

    def _limit(self, key: Hashable) -> int:
        """Return how many rows a batch of a key may have now; 0 = it has to wait."""
        assert isinstance(key, Key)
        if not self._chosen_by_planner(key):
            taken = any(batch.key.plan == key.plan for batch in self._running)
            return 0 if taken else self._most_rows
        if self._placing:
            return 0
        free = self._free.now(self._running)
        if not free and any(self._chosen_by_planner(batch.key) for batch in self._running):
            return 0
        share = math.ceil(self._line.rows_of(key) / max(1, len(free)))
        return min(self._most_rows, share)

    def _chosen_by_planner(self, key: Key) -> bool:
        return key.plan == AUTO or (key.plan is None and self._served.model.condition.adaptive)

    @property
    def _placing(self) -> bool:
        """Whether a batch is being handed in of which nobody knows yet which nodes it gets."""
        return any(
            batch.response is None and self._chosen_by_planner(batch.key) for batch in self._running
        )

    def _start(self, batch: Batch) -> None:
        self._running.add(batch)
        task = asyncio.get_running_loop().create_task(self._hand_in(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_in(self, batch: Batch) -> None:
        """Hand a batch to the cluster; from then on its nodes are known."""
        if not batch.wanted:
            self._close(batch, worked=False)
            return
        loop = asyncio.get_running_loop()
        behind = math.ceil(self._line.rows / self._most_rows)
        try:
            response = await asyncio.to_thread(batch.submit, self._served, behind)
        except Exception as error:
            # Whatever it is, those who wait must be told.
            self._failed(batch, error)
            return
        batch.response = response
        if self._chosen_by_planner(batch.key):
            self._free.placed(batch, self._running)

        def ended(done: Future[Response]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(self._ended, batch, done)

        response.add_done_callback(ended)
        batch.drop_if_unwanted()
        self._start_due()

    def _ended(self, batch: Batch, done: Future[Response]) -> None:
        error = done.exception()
        if error is not None:
            self._failed(batch, error)
            return
        response, now_s = done.result(), time.monotonic()
        try:
            parts = batch.parts(response)
        except Uncuttable:
            self._apart.add(batch.key.signature)
            self._run_one_by_one(batch)
            return
        except Exception as failure:
            self._failed(batch, failure)
            return
        self._throughput = self._throughput.after(batch.rows, now_s)
        self._metrics.batch_ended(self._served.name, batch.rows, response)
        for job, answered in zip(batch.jobs, parts, strict=True):
            self._metrics.request_queued(self._served.name, answered.queue_s)
            job.succeed(answered)
        self._close(batch, worked=True)

    def _failed(self, batch: Batch, error: BaseException) -> None:
        if isinstance(error, InputError) and len(batch.jobs) > 1:
            self._run_one_by_one(batch)
            return
        self._metrics.batch_failed(self._served.name, error)
        for job in batch.jobs:
            job.fail(error)
        self._close(batch, worked=False)

    def _run_one_by_one(self, batch: Batch) -> None:
        """Answer each request of a batch by itself."""
        self._metrics.batch_repeated(self._served.name)
        jobs = [job for job in batch.jobs if not job.answer.done()]
        retry = Retry(len(jobs))
        for job in jobs:
            self._start(Batch((job,), retry))
        self._close(batch, worked=False)

    def _close(self, batch: Batch, *, worked: bool) -> None:
        self._running.discard(batch)
        if batch.retry is not None and batch.retry.blames_joining(worked):
            self._apart.add(batch.key.signature)
        self._start_due()


def _too_late(job: Job) -> DeadlineExceeded:
    given_s = job.until_s - job.arrived_s
    return DeadlineExceeded(
        f"the request was not answered within {given_s:.3g} s; give it more time, or send fewer"
    )
