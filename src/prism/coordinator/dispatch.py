"""A plan becomes messages to its nodes, and their answers one output.

One attempt: the first failure ends it, and what to do then is `requests`' business.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prism.control import codec, messages
from prism.coordinator.calls import Call
from prism.coordinator.coordinator import Coordinator
from prism.coordinator.deadlines import Deadline
from prism.coordinator.recovery import Placed
from prism.engine.strategies import STRATEGIES, Strategy
from prism.errors import ModelFailed
from prism.models.outputs import as_answer
from prism.output_form import FULL, OutputForm
from prism.record import RunRecord

# What a message weighs without its tensors: headers, and the latency that it takes anyway.
_MESSAGE_BYTES = 4_000


@dataclass(frozen=True, slots=True)
class Work:
    """One batch for one model, checked.

    Attributes:
        model: its number in messages.
        inputs: the model's inputs by name.
        batch: samples.
        length: tokens per sample.
        output: the form of the output that is wanted, from `settle_form`.
    """

    model: int
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
    """

    output: Any
    record: RunRecord


@dataclass(frozen=True, slots=True)
class _Reply:
    """A node's answer.

    Attributes:
        output: as it travelled; None on helpers of a sequence plan.
        record: what it cost there, with the time of the ways there and back.
        at_s: when it was here, on `time.monotonic()`.
    """

    output: Any
    record: RunRecord
    at_s: float


@dataclass(frozen=True, slots=True)
class _Sent:
    """What a node was sent: how many bytes, and when."""

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

    def run(self, call: Call, work: Work, placed: Placed, deadline: Deadline) -> Answer:
        """Run one attempt.

        Args:
            call: the question it is; whoever gives it up ends the attempt.
            work: what to run.
            placed: how, and where.
            deadline: its limits, from now on.

        Raises:
            ClusterError: a node failed, vanished, or did not answer in time.
            Cancelled: the call was given up.
            InputError: a node, or the model, refused the request.
        """
        started_s = time.monotonic()
        strategy = STRATEGIES[placed.plan.strategy]
        parts = strategy.place(placed.plan, placed.nodes, work.inputs, work.batch)
        replies: dict[str, _Reply] = {}
        try:
            sent = self._send(call, work, placed, parts, deadline.exchange_s)
            self._collect(call, sent, started_s + deadline.answer_s, replies)
        except BaseException as error:
            # Whatever it was, an interrupt too: nobody waits for the others' work any more, and
            # nodes that exchange may be out of step with each other.
            in_step = isinstance(error, ModelFailed) and error.in_step
            self._give_up(call, placed, parts, replies, in_step=in_step)
            raise
        outputs = [replies[name].output for name in parts if replies[name].output is not None]
        ended_s = max(reply.at_s for reply in replies.values())
        record = _record(strategy, [replies[name] for name in parts], ended_s)
        record = replace(record, plan=placed.plan, batch=work.batch, total_s=ended_s - started_s)
        return Answer(as_answer(work.output, strategy.join(outputs)), record)

    def _send(
        self,
        call: Call,
        work: Work,
        placed: Placed,
        parts: Mapping[str, Mapping[str, Any]],
        timeout_s: float,
    ) -> dict[str, _Sent]:
        epoch = None
        if placed.plan.exchanges:
            epoch = self._coordinator.group(call, placed.nodes).epoch
        packed: dict[int, tuple[Any, list[memoryview]]] = {}
        sent = {}
        # The helpers' inputs have a link to cross; the node at home gets its own last.
        for name in sorted(parts, key=lambda name: name == self._home):
            part = parts[name]
            if id(part) not in packed:
                packed[id(part)] = codec.pack(part)
            description, frames = packed[id(part)]
            message = messages.Run(
                request=call.request,
                model=work.model,
                plan=str(placed.plan),
                length=work.length,
                output=str(work.output),
                inputs=description,
                epoch=epoch,
                timeout_s=timeout_s,
            )
            sent[name] = _Sent(_size(frames), time.monotonic())
            self._coordinator.send(name, message, frames)
        return sent

    def _collect(
        self,
        call: Call,
        sent: Mapping[str, _Sent],
        deadline_s: float,
        replies: dict[str, _Reply],
    ) -> None:
        while waiting := [name for name in sent if name not in replies]:
            name, message, frames = call.answer(deadline_s, waiting)
            output = None if message.output is None else codec.unpack(message.output, frames)
            at_s = time.monotonic()
            travelled_s = at_s - sent[name].at_s - message.held_s
            record = _with_ways(
                RunRecord.from_dict(message.record), travelled_s, sent[name].nbytes, _size(frames)
            )
            replies[name] = _Reply(output, record, at_s)

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


def _record(strategy: Strategy, replies: Sequence[_Reply], ended_s: float) -> RunRecord:
    """Return the first node's record with its waiting booked, and the others' beside it."""
    first, *others = replies
    inputs_s = [reply.record.input_s for reply in replies]
    record = strategy.settle(
        first.record,
        late_s=max(inputs_s) - first.record.input_s,
        after_s=ended_s - first.at_s,
    )
    return replace(record, per_node={each.record.node: each.record for each in others})


def _with_ways(record: RunRecord, travelled_s: float, there: int, back: int) -> RunRecord:
    """Return a node's record with the time of its input's and its output's way.

    No two clocks are compared: both ways together are what the coordinator waited longer than the
    node held the request. They are told apart by their bytes.

    Args:
        record: the node's own.
        travelled_s: both ways.
        there: bytes of the input.
        back: bytes of the output.
    """
    part = (there + _MESSAGE_BYTES) / (there + back + 2 * _MESSAGE_BYTES)
    input_s = max(0.0, travelled_s) * part
    output_s = max(0.0, travelled_s) - input_s
    return replace(
        record,
        total_s=record.total_s + input_s + output_s,
        input_s=input_s,
        output_s=record.output_s + output_s,
    )


def _size(frames: Sequence[Any]) -> int:
    return sum(memoryview(frame).nbytes for frame in frames)
