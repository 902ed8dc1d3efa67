"""Whom the first node waited for, and why: all waiting is booked where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from prism.record import RunRecord


@dataclass(frozen=True, slots=True)
class Report:
    """What a node reported of a run, and when, on the coordinator's clock.

    Attributes:
        record: the node's own, with the ways of its input and its output.
        begun_s: when its computation began.
        answered_s: when its answer was here.
        first_wait_s: part of the record's `comm_s` that went by before any peer's first frame.
        gather_s: part of its `output_s` that it waited inside the model for others' output rows.
    """

    record: RunRecord
    begun_s: float
    answered_s: float
    first_wait_s: float = 0.0
    gather_s: float = 0.0

    @property
    def ready_s(self) -> float:
        """When its input lay there, so that only the node itself kept it waiting."""
        return self.begun_s - self.record.queue_s

    @property
    def worked_s(self) -> float:
        """How long its forward pass took."""
        return self.record.compute_s + self.record.staging_s + self.record.comm_s


def book_end(first: Report, ended_s: float) -> RunRecord:
    """Return the first node's record with all that came after its answer, booked as output."""
    record = first.record
    return replace(record, output_s=record.output_s + ended_s - first.answered_s)


def book_last_rows(first: Report, others: Sequence[Report], ended_s: float) -> RunRecord:
    """Return the first node's record with the wait for the last rows of a batch.

    In turn: for their input, for a node that was busy, for its longer computation, for their way.
    """
    last = max(others, key=lambda each: each.answered_s, default=first)
    waited = _Waited(max(0.0, last.answered_s - first.answered_s))
    late_s = waited.take(last.ready_s - first.ready_s)
    busy_s = waited.take(last.record.queue_s - first.record.queue_s)
    longer_s = waited.take(last.worked_s - first.worked_s)
    record = book_end(first, ended_s)
    return replace(
        record,
        input_s=record.input_s + late_s,
        queue_s=record.queue_s + busy_s,
        comm_s=record.comm_s + longer_s,
        output_s=record.output_s - late_s - busy_s - longer_s,
    )


def book_late_peers(first: Report, others: Sequence[Report], ended_s: float) -> RunRecord:
    """Return rank 0's record with what it waited inside the model for peers that began late.

    It waits for their first frames, since from then on all go in step. What it computed ahead of
    them meanwhile, with lag or in a causal model, it waits for when it gathers their output rows.
    """
    last = max(others, key=lambda each: each.begun_s, default=first)
    late = _Waited(max(0.0, last.begun_s - first.begun_s))
    record = book_end(first, ended_s)
    in_model_s = late.take(min(first.first_wait_s, record.comm_s))
    at_end_s = late.take(first.gather_s)
    waited = _Waited(in_model_s + at_end_s)
    busy_s = waited.take(last.record.queue_s - first.record.queue_s)
    return replace(
        record,
        input_s=record.input_s + waited.left_s,
        queue_s=record.queue_s + busy_s,
        comm_s=record.comm_s - in_model_s,
        output_s=record.output_s - at_end_s,
    )


class _Waited:
    """A time to be divided among its causes, in turn.

    Attributes:
        left_s: what nothing has been named for yet.
    """

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds

    def take(self, seconds: float) -> float:
        """Return as much of `seconds` as is left, and take it away."""
        taken_s = min(self.left_s, max(0.0, seconds))
        self.left_s -= taken_s
        return taken_s
