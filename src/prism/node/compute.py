"""What the computing thread does: connect to the others, run a batch, time exchanges."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from prism.control import codec, lossless
from prism.control import messages as control
from prism.energy import EnergyMeter, EnergyReading
from prism.errors import ModelFailed
from prism.node.arriving import ArrivingRows
from prism.node.groups import Groups
from prism.node.loader import Loader
from prism.node.tasks import Reply, Task, Tasks
from prism.output_form import OutputForm
from prism.plan import Plan
from prism.record import RunRecord
from prism.transport.base import Transport
from prism.transport.measure import exchange_times

# What the computing thread is asked to do.
COMPUTED = (control.FormGroup, control.Run, control.TimeExchanges, control.TimeCoding)


class Computer:
    """Carries out tasks one at a time, on the thread that calls it.

    Args:
        tasks: what is asked of the node.
        loader: has the models.
        groups: has the connections to the other nodes.
        meter: measures the energy of a run.
    """

    def __init__(self, tasks: Tasks, loader: Loader, groups: Groups, meter: EnergyMeter) -> None:
        self._tasks = tasks
        self._loader = loader
        self._groups = groups
        self._meter = meter

    def do(self, task: Task) -> None:
        """Carry out one of `COMPUTED`."""
        message = task.message
        if isinstance(message, control.FormGroup):
            self._tasks.carry_out(task, self._form_group)
            return
        if isinstance(message, control.TimeCoding):
            self._tasks.carry_out(task, _time_coding)
            return
        action = self._run if isinstance(message, control.Run) else self._time_exchanges
        done = self._tasks.carry_out(task, action)
        if not (done or task.in_step) and message.epoch is not None:
            # The others wait for frames that will not come: the closed connection tells them.
            self._groups.close((message.epoch,))
        if isinstance(message, control.Run):
            self._loader.released(message.model)

    def _form_group(self, task: Task) -> None:
        self._groups.connect(task.message.group)

    def _time_exchanges(self, task: Task) -> Reply:
        message = task.message
        with self._groups.using(message.epoch) as transport:
            assert transport is not None
            times_s = exchange_times(transport, message.sizes, message.repeats, message.senders)
        return control.ExchangesTimed(request=message.request, times_s=tuple(times_s)), ()

    def _run(self, task: Task) -> Reply:
        picked_s = time.monotonic()
        message = task.message
        engine = self._loader.engine(message.model)
        with self._groups.using(message.epoch) as transport:
            inputs = codec.unpack(message.inputs, task.frames)
            rest = ArrivingRows(task, message.timeout_s) if message.rest_rows else None
            with self._meter.window() as window, _noting_step(task, transport):
                plan = Plan.parse(message.plan)
                begun_s = time.monotonic()
                execution = engine.run(
                    inputs,
                    plan,
                    length=message.length,
                    output=OutputForm.parse(message.output),
                    transport=transport,
                    timeout_s=message.timeout_s,
                    whole_shape=message.whole_shape,
                    rest=rest,
                    should_cancel=lambda: task.unwanted or not self._groups.is_open(message.epoch),
                )
                window.busy(seconds=execution.record.compute_s)
        output: Any = None
        frames: list[memoryview] = []
        if execution.output is not None:
            output, frames = codec.pack(execution.output)
        # Asked for as late as can be: what the sensor has seen by then need not be guessed.
        record = _with_energy(execution.record, window.reading)
        record = _with_stay(record, task, rest, picked_s, begun_s)
        done = control.Done(
            request=message.request,
            held_s=record.total_s,
            record=record.to_dict(),
            first_wait_s=execution.first_wait_s,
            gather_s=execution.record.output_s,
            output=output,
        )
        return done, frames


def _time_coding(task: Task) -> Reply:
    compress_s, decompress_s = lossless.times_per_byte_s()
    timed = control.CodingTimed(
        request=task.message.request,
        compress_per_byte_s=compress_s,
        decompress_per_byte_s=decompress_s,
    )
    return timed, ()


@contextmanager
def _noting_step(task: Task, transport: Transport | None) -> Iterator[None]:
    """Note on a failure of the model whether the others can go on with this transport."""
    try:
        yield
    except ModelFailed:
        task.in_step = transport is None or not transport.closed
        raise


def _with_stay(
    record: RunRecord, task: Task, rest: ArrivingRows | None, picked_s: float, begun_s: float
) -> RunRecord:
    """Return the engine's record of a run, told of the whole stay of its task here until now.

    Args:
        record: the engine's.
        task: as it came.
        rest: the rows that came later.
        picked_s: when the computing thread turned to it, on `time.monotonic()`.
        begun_s: when the engine was called.
    """
    now_s = time.monotonic()
    last_s = max(task.arrived_s, rest.arrived_s if rest else 0.0)
    return replace(
        record,
        total_s=now_s - task.began_s,
        input_s=task.arrived_s - task.began_s + begun_s - picked_s + record.input_s,
        arrival_s=last_s - task.began_s,
        queue_s=picked_s - task.arrived_s,
        output_s=record.output_s + now_s - begun_s - record.total_s,
    )


def _with_energy(record: RunRecord, reading: EnergyReading) -> RunRecord:
    return replace(
        record,
        energy_j=reading.joules,
        energy_scope=reading.scope if reading.reason is None else reading.reason,
        energy_domain=reading.domain or None,
        energy_quality=reading.quality,
    )
