"""A plan becomes messages to its nodes, and their answers one output.

One attempt: the first failure ends it, and what to do then is the session's business.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prism.control import codec as tensors
from prism.control import messages as control
from prism.coordinator.coordinator import Call, Coordinator
from prism.coordinator.deadlines import Deadline
from prism.coordinator.roster import Placed
from prism.emulation.medium import wait_until
from prism.emulation.place import EmulatedLink
from prism.partition.spans import rows
from prism.plan import Plan
from prism.record import RunRecord


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gave.

    Attributes:
        output: the model's usual output.
        record: the coordinator node's record, its total spanning the whole request; `per_node` has
        the
            others.
    """

    output: Any
    record: RunRecord


@dataclass(frozen=True, slots=True)
class _Reply:
    output: Any
    record: RunRecord
    at_s: float


class Dispatcher:
    """Runs one request at a time on the nodes of a coordinator.

    Args:
        coordinator: talks to the nodes.
        home: name of the node on the coordinator's own device.
        link: the emulated link of a local cluster.
    """

    def __init__(
        self, coordinator: Coordinator, home: str, link: EmulatedLink | None = None
    ) -> None:
        self._coordinator = coordinator
        self._home = home
        self._link = link

    def run(
        self, model: int, inputs: dict[str, Any], placed: Placed, batch: int, deadline: Deadline
    ) -> Answer:
        """Run a request under a plan on its nodes.

        Raises:
            ClusterError: a node failed, vanished, or did not answer in time.
            InputError: a node refused the request.
        """
        started_s = time.monotonic()
        plan = placed.plan
        parts = _parts(placed, inputs, batch)
        call = self._coordinator.call()
        try:
            self._send(call, model, placed, parts, deadline.exchange_s)
            replies = self._collect(call, list(parts), started_s + deadline.answer_s)
        except BaseException:
            # Whatever it was, an interrupt too: the nodes may be out of step with each other.
            if plan.strategy == "sequence":
                self._coordinator.new_epoch()
            raise
        finally:
            self._coordinator.end(call)
        outputs = [replies[name].output for name in parts if replies[name].output is not None]
        output = tensors.join_rows(outputs)
        return Answer(output, _summary(plan, batch, replies, list(parts), started_s))

    def _send(
        self,
        call: Call,
        model: int,
        placed: Placed,
        parts: Mapping[str, dict[str, Any]],
        timeout_s: float,
    ) -> None:
        epoch = None
        if placed.plan.strategy == "sequence":
            epoch = self._coordinator.group(call, placed.nodes).epoch
        packed: dict[int, tuple[Any, list[memoryview]]] = {}
        # The helpers' inputs have a link to cross; the node at home gets its own last.
        for name in sorted(parts, key=lambda name: name == self._home):
            part = parts[name]
            if id(part) not in packed:
                packed[id(part)] = tensors.pack(part)
            description, frames = packed[id(part)]
            message = control.Run(
                request=call.request,
                model=model,
                plan=str(placed.plan),
                inputs=description,
                epoch=epoch,
                timeout_s=timeout_s,
                arrives_s=self._arrival_s(name, frames),
            )
            self._coordinator.send(name, message, frames)

    def _arrival_s(self, name: str, frames: list[memoryview]) -> float:
        if self._link is None:
            return 0.0
        return self._link.arrival_s(self._home, name, sum(frame.nbytes for frame in frames))

    def _collect(self, call: Call, names: list[str], deadline_s: float) -> dict[str, _Reply]:
        replies: dict[str, _Reply] = {}
        while waiting := [name for name in names if name not in replies]:
            name, message, frames = self._coordinator.answer(call, deadline_s, waiting)
            output = None
            if message.output is not None:
                output = tensors.unpack(message.output, frames)
                wait_until(message.arrives_s)
            record = RunRecord.from_dict(message.record)
            replies[name] = _Reply(output, record, time.monotonic())
        return replies


def _parts(placed: Placed, inputs: dict[str, Any], batch: int) -> dict[str, dict[str, Any]]:
    """Return what each node is given to compute on."""
    plan = placed.plan
    if plan.strategy != "batch":
        return {name: inputs for name in placed.nodes}
    spans = rows(batch, plan.size, plan.shares)
    return {
        name: tensors.rows_of(inputs, span.start, span.stop)
        for name, span in zip(placed.nodes, spans, strict=True)
        if span.size
    }


def _summary(
    plan: Plan, batch: int, replies: Mapping[str, _Reply], names: list[str], started_s: float
) -> RunRecord:
    """Return the first node's record, spanning the request from its start to its end."""
    first = replies[names[0]]
    own = first.record
    ended_s = max(reply.at_s for reply in replies.values())
    latest_input_s = max(reply.record.input_s for reply in replies.values())
    input_s, comm_s, output_s = own.input_s, own.comm_s, own.output_s
    # What the first node waited for peers that were still waiting for their input is input time:
    # inside the model, or after it for the last rows.
    late_s = max(0.0, latest_input_s - input_s)
    if plan.strategy == "batch":
        output_s += max(0.0, ended_s - first.at_s)
        late_s = min(output_s, late_s)
        input_s, output_s = input_s + late_s, output_s - late_s
    elif plan.strategy == "sequence":
        late_s = min(comm_s, late_s)
        input_s, comm_s = input_s + late_s, comm_s - late_s
    return replace(
        own,
        plan=plan,
        batch=batch,
        total_s=ended_s - started_s,
        input_s=input_s,
        comm_s=comm_s,
        output_s=output_s,
        per_node={name: replies[name].record for name in names[1:]},
    )
