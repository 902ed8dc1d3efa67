"""The life of a request between its caller and the nodes: scheduled, run, and answered.

An attempt runs one plan. When it fails because of the machines, not of the request, the same
request is answered by the nodes that are left. Every attempt teaches: what it took, or that it was
given up, decides deadlines, pauses and plans to come.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from typing_extensions import override

from prism.coordinator.calls import Call
from prism.coordinator.coordinator import Coordinator
from prism.coordinator.dispatch import Answer, Dispatcher, Work
from prism.coordinator.experience import Experience
from prism.coordinator.recovery import Placed, fallbacks
from prism.coordinator.scheduler import Scheduler
from prism.errors import Cancelled, ClusterError, DeadlineExceeded
from prism.plan import Precision
from prism.planner import Decision
from prism.record import Response

Nodes = tuple[str, ...]
# After a failure, nodes are asked whether they are there; one that is does not take so long.
_CONFIRM_S = 1.0
# Longest that a node waits for others that do not come to a group, besides one exchange.
_MEETING_S = 5.0


class _NotNow(Exception):  # noqa: N818 - not an error of the request: others can answer it
    """An attempt failed because of the machines."""

    def __init__(self, error: ClusterError) -> None:
        super().__init__(str(error))
        self.error = error


class ResponseFuture(Future[Response]):
    """The answer to come. It can be cancelled until it is there, also while nodes compute.

    Attributes:
        nodes: on which it is to run first.
    """

    def __init__(self, give_up: Callable[[], None], nodes: Nodes = ()) -> None:
        super().__init__()
        self.nodes = nodes
        self._give_up = give_up

    @override
    def cancel(self) -> bool:
        """Give the request up: its work is dropped at the next block. False when it is done."""
        if self.done():
            return False
        self._give_up()
        return True

    @override
    def cancelled(self) -> bool:
        return self.done() and isinstance(self.exception(), Cancelled)


@dataclass(slots=True)
class Request:
    """One request of one model.

    Attributes:
        work: what to run, checked.
        placed: how and where it is to run first.
        obstacle: why that cannot even be tried, in words; empty when it can.
        decision: how the plan was chosen; None when the caller named it.
        until_s: on `time.monotonic()`, when nobody wants the answer any more.
        nodes: returns the nodes that could work on it now, and all of the cluster, in its order.
        experience: of the model.
        alone: the precision at which every node that is ready has the model.
    """

    work: Work
    placed: Placed
    obstacle: str
    decision: Decision | None
    until_s: float
    nodes: Callable[[], tuple[Nodes, Nodes]]
    experience: Experience
    alone: Precision = "float32"
    submitted_s: float = field(default_factory=time.monotonic)
    _wake: threading.Event = field(default_factory=threading.Event)
    _call: Call | None = None
    _given_up: bool = False
    _in_line: Placed | None = None
    _turn_came: bool = False

    @property
    def fallback(self) -> Precision:
        """At which precision one node answers instead: never at one that may lose more."""
        return self.alone if self.alone == "float32" else self.placed.plan.precision

    def give_up(self) -> None:
        """Let it end with `Cancelled`, from any thread."""
        self._given_up = True
        call = self._call
        if call is not None:
            call.give_up()
        self._wake.set()

    def check(self) -> None:
        """Check that somebody still waits for the answer.

        Raises:
            Cancelled, DeadlineExceeded: nobody does.
        """
        if self._given_up:
            raise Cancelled("the request was cancelled")
        now_s = time.monotonic()
        if now_s >= self.until_s:
            raise DeadlineExceeded(
                f"the request was not answered within {self.until_s - self.submitted_s:.3g} s; "
                f"give it more time, or a plan that is faster"
            )

    def line_up(self, scheduler: Scheduler, number: int, placed: Placed) -> None:
        """Take the place in the line for an attempt, unless it is taken already."""
        if self._in_line == placed:
            return

        def start() -> None:
            self._turn_came = True
            self._wake.set()

        self._in_line, self._turn_came = placed, False
        expected_s = self.experience.expected_s(placed, self.work)
        scheduler.enter(number, placed.nodes, start, expected_s)

    def leave_line(self, scheduler: Scheduler, number: int) -> None:
        """Give the nodes back after an attempt; another one lines up anew."""
        scheduler.leave(number)
        self._in_line = None

    def wait_turn(self) -> None:
        """Wait until it is this request's turn.

        Raises:
            Cancelled, DeadlineExceeded: as `check`.
        """
        while not self._turn_came:
            left_s = self.until_s - time.monotonic()
            self._wake.wait(None if math.isinf(left_s) else max(0.0, left_s))
            self._wake.clear()
            self.check()

    @contextmanager
    def asking(self, coordinator: Coordinator) -> Iterator[Call]:
        """Open a question to nodes that ends when the request is given up."""
        call = self._call = coordinator.call()
        try:
            self.check()  # it may have been given up just before
            yield call
        finally:
            self._call = None
            coordinator.end(call)


class Requests:
    """All requests of one cluster; safe to use from all threads.

    Args:
        coordinator: opens the questions to nodes.
        dispatcher: runs attempts.
        scheduler: gives turns.
    """

    def __init__(
        self, coordinator: Coordinator, dispatcher: Dispatcher, scheduler: Scheduler
    ) -> None:
        self._coordinator = coordinator
        self._dispatcher = dispatcher
        self._scheduler = scheduler
        self._numbers = itertools.count(1)
        # By node, until when it may be stuck with a peer that failed it.
        self._stuck_until_s: dict[str, float] = {}

    def submit(self, request: Request, note: Callable[[Response], Response]) -> ResponseFuture:
        """Answer a request on a thread of its own; `note` sees the response first.

        Its place in the line is taken before this returns: whoever asks for the load sees it.
        """
        future = ResponseFuture(request.give_up, request.placed.nodes)
        number = next(self._numbers)
        if not request.obstacle:
            request.line_up(self._scheduler, number, request.placed)

        def work() -> None:
            try:
                future.set_result(note(self._answer(request, number)))
            except BaseException as error:
                future.set_exception(error)

        try:
            threading.Thread(target=work, name=f"prism-request-{number}", daemon=True).start()
        except BaseException:  # this machine has no thread left; the nodes must not wait for it
            self._scheduler.leave(number)
            raise
        return future

    def answer(self, request: Request) -> Response:
        """Answer a request here and now.

        Raises:
            InputError: the model or a node refused it.
            Cancelled, DeadlineExceeded: nobody waits for the answer any more.
            ClusterError: no node is left that could answer.
        """
        return self._answer(request, next(self._numbers))

    def _answer(self, request: Request, number: int) -> Response:
        """Run the plan; if nodes fail, run what can still be run."""
        failure: ClusterError | None = None
        try:
            for placed in self._candidates(request):
                request.line_up(self._scheduler, number, placed)
                request.wait_turn()
                try:
                    return self._attempt(request, placed, number, failure)
                except _NotNow as setback:
                    failure = setback.error
                    request.leave_line(self._scheduler, number)
        finally:
            self._scheduler.leave(number)
        ready, everyone = request.nodes()
        if failure is not None and ready:
            raise failure
        reason = failure or request.obstacle or f"of {', '.join(everyone)} none is there"
        raise ClusterError(f"no node is left to answer ({reason}); start the cluster again")

    def _candidates(self, request: Request) -> Iterator[Placed]:
        """Yield the plan, and after it has failed what those who are left can do."""
        if not request.obstacle:
            yield request.placed
        ready, everyone = request.nodes()
        there = self._coordinator.confirm(ready, _CONFIRM_S)
        instead = fallbacks(request.placed, there or ready, everyone, request.fallback)
        yield from instead
        if request.obstacle and not instead:
            yield request.placed  # whatever speaks against it: there is nothing else

    def _attempt(
        self, request: Request, placed: Placed, number: int, failure: ClusterError | None
    ) -> Response:
        """Run a plan; `failure` is what an earlier one ended with."""
        experience, work = request.experience, request.work
        alone = not self._scheduler.others_run(number)
        begun_s = time.monotonic()
        deadline = experience.deadline(placed, work).later(self._stuck_s(placed.nodes, begun_s))
        left_s = request.until_s - begun_s
        try:
            with request.asking(self._coordinator) as call:
                limits, codings = deadline.at_most(left_s), experience.image_codings(placed)
                answer = self._dispatcher.run(call, work, placed, limits, codings)
        except Cancelled:
            raise
        except ClusterError as error:
            request.check()  # it was the caller who had no more time
            now_s = time.monotonic()
            stuck_until_s = now_s + deadline.exchange_s + _MEETING_S
            self._stuck_until_s.update(dict.fromkeys(placed.nodes, stuck_until_s))
            experience.failed(placed, work, error, now_s - begun_s)
            raise _NotNow(error) from error
        response = _response(request, placed, answer, failure)
        for name in placed.nodes:
            self._stuck_until_s.pop(name, None)
        alone = alone and not self._scheduler.others_run(number)
        experience.worked(placed, work, answer.record, alone=alone)
        return response

    def _stuck_s(self, nodes: Nodes, now_s: float) -> float:
        """Return how long one of some nodes may still be waiting for a peer that failed it."""
        until_s = max(self._stuck_until_s.get(name, now_s) for name in nodes)
        return max(0.0, until_s - now_s)


def _response(
    request: Request,
    placed: Placed,
    answer: Answer,
    failure: ClusterError | None,
) -> Response:
    as_asked = placed == request.placed
    record = replace(
        answer.record,
        total_s=time.monotonic() - request.submitted_s,
        queue_s=answer.begun_s - request.submitted_s + answer.record.queue_s,
        outcome="ok" if as_asked else "recovered",
        setback="" if as_asked else f"{request.placed.plan}: {failure or request.obstacle}",
    )
    return Response(answer.output, record, request.decision)
