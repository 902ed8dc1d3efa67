"""What the coordinator asked this node to do and is not done: who waits for it, and who no more.

A task is *cancelled* when its caller gave it up, and *void* when nobody could take an answer: the
coordinator lost sight of this node, or another one came. Both are dropped, the second in silence.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from prism.control import messages as control
from prism.errors import Cancelled, PrismError

Reply = tuple[BaseModel, Sequence[memoryview]]


@dataclass(slots=True, eq=False)
class Task:
    """One thing to do.

    Attributes:
        message: what was asked for.
        frames: what followed it.
        announced_s: when its sender said that it was coming, on `time.monotonic()`; None where
            nobody did, since it is small.
        arrived_s: when all of it was here.
        cancelled: its caller gave it up.
        void: nobody could take an answer.
        in_step: it failed, but the connections to the others can serve the next request.
        rest: gets the rows that follow those of a run, with when they were here on
            `time.monotonic()`, or None where nobody wants them any more.
    """

    message: Any
    frames: Sequence[Any]
    announced_s: float | None = None
    arrived_s: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    void: bool = False
    in_step: bool = False
    rest: queue.SimpleQueue[tuple[control.Rest, Sequence[Any], float] | None] = field(
        default_factory=queue.SimpleQueue
    )

    @property
    def request(self) -> int | None:
        """The request's number; None for what is not answered."""
        return getattr(self.message, "request", None)

    @property
    def unwanted(self) -> bool:
        """Whether to drop it where it stands."""
        return self.cancelled or self.void

    @property
    def began_s(self) -> float:
        """When its first byte was here."""
        return self.arrived_s if self.announced_s is None else self.announced_s


class Tasks:
    """The tasks of a node; used from all its threads.

    Args:
        name: of the node.
        send: sends a message with its frames to the coordinator.
    """

    def __init__(self, name: str, send: Callable[[BaseModel, Sequence[memoryview]], None]) -> None:
        self._name = name
        self._send = send
        self._open: set[Task] = set()
        self._announced_s: dict[int, float] = {}  # by request
        self._changing = threading.Lock()

    def announce(self, request: int) -> None:
        """Take note that the message of a request is coming."""
        now_s = time.monotonic()
        with self._changing:
            self._announced_s[request] = now_s

    def add(self, message: BaseModel, frames: Sequence[Any] = ()) -> Task:
        """Take a message as a task; it stays until it is carried out."""
        task = Task(message, frames)
        with self._changing:
            if isinstance(message, control.Run):
                task.announced_s = self._announced_s.pop(message.request, None)
            self._open.add(task)
        return task

    def add_rest(self, message: control.Rest, frames: Sequence[Any]) -> None:
        """Hand the rows that follow those of a run to its task; nobody wants them without one."""
        now_s = time.monotonic()
        with self._changing:
            for task in self._open:
                if task.request == message.request and isinstance(task.message, control.Run):
                    task.rest.put((message, frames, now_s))

    def cancel(self, request: int) -> None:
        """Mark the tasks of a request as given up; one that is done already is none any more.

        A group is formed all the same: the others wait for this node, and it serves what comes.
        """
        with self._changing:
            self._announced_s.pop(request, None)  # what was announced may never have been sent
            for task in self._open:
                if task.request == request and not isinstance(task.message, control.FormGroup):
                    task.cancelled = True
                    task.rest.put(None)

    def void_all(self) -> None:
        """Let nobody be answered who asked before."""
        with self._changing:
            self._announced_s.clear()
            for task in self._open:
                task.void = True
                task.rest.put(None)

    def carry_out(self, task: Task, action: Callable[[Task], Reply | None]) -> bool:
        """Do what a task asks by `action`, and send its reply, or why there is none.

        Returns:
            Whether it was done.
        """
        reply: Reply | None = None
        done = False
        try:
            if task.cancelled:
                raise Cancelled(f"request {task.request} was given up before it began")
            if not task.void:
                reply = action(task)
                done = True
        except PrismError as error:
            reply = self._failure(task, type(error).__name__, str(error))
        except Exception as error:  # whatever happens here must reach the caller
            reason = f"{self._name}: {type(error).__name__}: {error}"
            reply = self._failure(task, "NodeFailed", reason)
        with self._changing:
            self._open.discard(task)
            # Who carried it out may hold the task until the next one comes.
            task.frames, task.rest = (), queue.SimpleQueue()
        if not task.void and reply is not None:
            message, frames = reply
            if task.request is not None and control.is_large(frames):
                self._send(control.Announce(request=task.request), ())
            self._send(message, frames)
        return done

    def _failure(self, task: Task, error: str, reason: str) -> Reply | None:
        if task.request is None:
            return None
        failed = control.Failed(
            request=task.request, error=error, message=reason, in_step=task.in_step
        )
        return failed, ()
