"""A plan becomes messages to its nodes, and their answers one output.

One attempt: the first failure ends it, and what to do then is `requests`' business.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prism.control import codec, messages
from prism.coordinator.calls import Call, Heard
from prism.coordinator.coordinator import Coordinator
from prism.coordinator.deadlines import Deadline
from prism.coordinator.parcels import Codings, parcels_of
from prism.coordinator.recovery import Placed
from prism.engine.strategies import STRATEGIES
from prism.engine.strategy import Placement
from prism.engine.waiting import Report
from prism.errors import ModelFailed
from prism.models.load import ModelInfo
from prism.models.outputs import as_answer
from prism.output_form import FULL, OutputForm
from prism.record import RunRecord


@dataclass(frozen=True, slots=True)
class Work:
    """One batch for one model, checked.

    Attributes:
        model: its number in messages.
        info: its description.
        inputs: the model's inputs by name.
        batch: samples.
        length: tokens per sample.
        output: the form of the output that is wanted, from `settle_form`.
    """

    model: int
    info: ModelInfo
    inputs: Mapping[str, Any]
    batch: int
    length: int
    output: OutputForm = FULL


@dataclass(frozen=True, slots=True)
class Answer:
    """What an attempt gave.

    Attributes:
        output: the model's usual output, or what was wanted of it.
        record: rank 0's, its total spanning the whole attempt; `per_node` has the others.
        begun_s: when the attempt began, on `time.monotonic()`.
    """

    output: Any
    record: RunRecord
    begun_s: float


@dataclass(frozen=True, slots=True)
class _Reply:
    """A node's answer.

    Attributes:
        output: as it travelled; None on helpers of a sequence plan.
        report: what it cost there, and when.
    """

    output: Any
    report: Report


@dataclass(frozen=True, slots=True)
class _Sent:
    """What a node was sent: how many bytes, and when their sending or announcing began."""

    nbytes: int
    at_s: float


class Dispatcher:
    """Runs attempts on the nodes.

    Args:
        coordinator: talks to the nodes.
        home: name of the node on the coordinator's own device.
    """

    def __init__(self, coordinator: Coordinator, home: str) -> None:
        self._coordinator = coordinator
        self._home = home

    def run(
        self, call: Call, work: Work, placed: Placed, deadline: Deadline, codings: Codings
    ) -> Answer:
        """Run one attempt.

        Args:
            call: the question it is; whoever gives it up ends the attempt.
            work: what to run.
            placed: how, and where.
            deadline: its limits, from now on.
            codings: by helper, what decides whether images are compressed on their way there.

        Raises:
            ClusterError: a node failed, vanished, or did not answer in time.
            Cancelled: the call was given up.
            InputError: a node, or the model, refused the request.
        """
        started_s = time.monotonic()
        strategy = STRATEGIES[placed.plan.strategy]
        placement = strategy.place(work.info, placed.plan, placed.nodes, work.inputs, work.length)
        parts = placement.inputs
        replies: dict[str, _Reply] = {}
        try:
            longest_s = deadline.of_node(exchanges=placed.plan.exchanges)
            sent = self._send(call, work, placed, placement, longest_s, codings)
            self._collect(call, sent, started_s + deadline.answer_s, replies)
        except BaseException as error:
            # Whatever it was, an interrupt too: nobody waits for the others' work any more, and
            # nodes that exchange may be out of step with each other.
            in_step = isinstance(error, ModelFailed) and error.in_step
            self._give_up(call, placed, parts, replies, in_step=in_step)
            raise
        outputs = [replies[name].output for name in parts if replies[name].output is not None]
        output = as_answer(work.output, strategy.join(outputs))
        ended_s = time.monotonic()
        first, *others = (replies[name].report for name in parts)
        prepared_s = sent[first.record.node].at_s - started_s
        record = strategy.settle(first, others, ended_s)
        record = replace(
            record,
            plan=placed.plan,
            batch=work.batch,
            total_s=ended_s - started_s,
            input_s=prepared_s + record.input_s,
            per_node={each.record.node: each.record for each in others},
        )
        return Answer(output, record, started_s)

    def _send(
        self,
        call: Call,
        work: Work,
        placed: Placed,
        placement: Placement,
        timeout_s: float,
        codings: Codings,
    ) -> dict[str, _Sent]:
        epoch = None
        if placed.plan.exchanges:
            epoch = self._coordinator.group(call, placed.nodes).epoch
        strategy = STRATEGIES[placed.plan.strategy]
        parcels = parcels_of(work.info, strategy, placement, self._home, codings)
        sent = {}
        # All are announced before any is sent: behind the frames for another, the news would come
        # late.
        for name, parcel in parcels.items():
            if name != self._home and messages.is_large(parcel.frames):
                sent[name] = _Sent(parcel.nbytes, time.monotonic())
                self._coordinator.send(name, messages.Announce(request=call.request))
        for name, parcel in parcels.items():
            first = parcel.first
            sent.setdefault(name, _Sent(parcel.nbytes, time.monotonic()))
            message = messages.Run(
                request=call.request,
                model=work.model,
                plan=str(placed.plan),
                length=work.length,
                output=str(work.output),
                inputs=first.description,
                epoch=epoch,
                timeout_s=timeout_s,
                whole_shape=placement.whole_shape,
                rest_rows=parcel.rest_rows,
            )
            self._coordinator.send(name, message, first.frames)
        for name, parcel in parcels.items():
            rest = parcel.rest
            if rest is not None:
                more = messages.Rest(request=call.request, inputs=rest.description)
                self._coordinator.send(name, more, rest.frames)
        return sent

    def _collect(
        self,
        call: Call,
        sent: Mapping[str, _Sent],
        deadline_s: float,
        replies: dict[str, _Reply],
    ) -> None:
        while waiting := [name for name in sent if name not in replies]:
            heard = call.answer(deadline_s, waiting)
            output = None
            if heard.message.output is not None:
                output = codec.unpack(heard.message.output, heard.frames)
            replies[heard.name] = _Reply(output, _report(heard, sent[heard.name]))

    def _give_up(
        self,
        call: Call,
        placed: Placed,
        parts: Mapping[str, Any],
        replies: Mapping[str, _Reply],
        *,
        in_step: bool,
    ) -> None:
        working = [name for name in parts if name not in replies]
        self._coordinator.tell(working, messages.Cancel(request=call.request))
        if placed.plan.exchanges and not in_step:
            self._coordinator.drop_group(placed.nodes)


def _report(heard: Heard, sent: _Sent) -> Report:
    """Return a node's report with the ways of its input and its output.

    No two clocks are compared. Each end timed what came to it, from its announcement to its last
    byte; the rest of what the coordinator waited longer than the node held the request are the two
    latencies, one there and one back.
    """
    done = heard.message
    own = RunRecord.from_dict(done.record)
    travelled_s = max(0.0, heard.arrived_s - sent.at_s - done.held_s)
    carried_s = min(heard.carried_s, travelled_s)
    latency_s = (travelled_s - carried_s) / 2
    record = replace(
        own,
        total_s=own.total_s + travelled_s,
        input_s=own.input_s + latency_s,
        output_s=own.output_s + carried_s + latency_s,
        input_bytes=sent.nbytes,
        # A small input comes without announcement, and nothing tells when its way began.
        arrival_s=own.arrival_s + latency_s if own.arrival_s else 0.0,
        output_bytes=messages.size_of(heard.frames),
    )
    return Report(
        record,
        begun_s=sent.at_s + record.input_s + record.queue_s,
        answered_s=heard.arrived_s,
        first_wait_s=done.first_wait_s,
        gather_s=done.gather_s,
    )
