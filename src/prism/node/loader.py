"""The models in memory, and the thread that brings them in and lets go of them.

Loading takes seconds; on a thread of its own it keeps no request waiting. Other precisions are made
by another one yet, which gets the processor while nothing is computed: requests are no slower.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from transformers.utils import logging as transformers_logging

from prism.control import messages as control
from prism.engine.engine import Engine
from prism.errors import Cancelled, ClusterError, UnsupportedPrecision
from prism.models.load import load
from prism.node.memory import return_freed_memory
from prism.node.tasks import Reply, Task, Tasks
from prism.plan import Precision

_CLOSE_TIMEOUT_S = 0.2
_LEAST_PRIORITY = 19


class Loader:
    """Loads and unloads models, one after the other.

    Args:
        name: of the node.
        device: torch device of the weights.
        tasks: what is asked of the node.
        backend: name of what makes models callable.
        emulate: allow half precision on a processor that emulates it.
    """

    def __init__(
        self,
        name: str,
        device: str,
        tasks: Tasks,
        backend: str,
        *,
        emulate: bool = False,
    ) -> None:
        self._name = name
        self._device = device
        self._tasks = tasks
        self._backend = backend
        self._emulate = emulate
        self._engines: dict[int, Engine] = {}
        self._changing = threading.Lock()
        # True asks for the memory of what nobody holds any more; None ends the thread.
        self._queue: queue.SimpleQueue[Task | bool | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="prism-loader", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after what it is loading; does not wait for that."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(_CLOSE_TIMEOUT_S)

    def submit(self, task: Task) -> None:
        """Queue a `Load` or an `Unload`."""
        self._queue.put(task)

    def engine(self, model: int) -> Engine:
        """Return what runs a model; hold it no longer than one run, then call `released`.

        Raises:
            ClusterError: it is not loaded.
        """
        with self._changing:
            if model not in self._engines:
                raise ClusterError(f"{self._name} has not loaded model {model}; load it first")
            return self._engines[model]

    def released(self, model: int) -> None:
        """Take note that a run let go of its engine, which may have been the last to hold it."""
        with self._changing:
            loaded = model in self._engines
        if not loaded:
            self._queue.put(True)

    def clear(self) -> None:
        """Let go of all models; from any thread."""
        with self._changing:
            self._engines = {}
        self._queue.put(True)

    def _work(self) -> None:
        # The node's output is a log, one sentence per line.
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        while (item := self._queue.get()) is not None:
            if isinstance(item, Task):
                self._tasks.carry_out(item, self._act)
            return_freed_memory()

    def _act(self, task: Task) -> Reply | None:
        message = task.message
        if isinstance(message, control.Unload):
            with self._changing:
                self._engines.pop(message.model, None)
            return None
        with self._changing:
            engine = self._engines.get(message.model)
        fresh = engine is None
        if engine is None:
            loaded = load(message.source, message.dtype, self._device)
            engine = Engine(loaded, self._name, self._backend, emulate=self._emulate)
        refused = _added(engine, message.precisions)
        with self._changing:
            if task.unwanted:
                raise Cancelled(f"model {message.model} was given up while it was loaded")
            if fresh:
                self._engines[message.model] = engine
        answer = control.Loaded(
            request=message.request,
            fingerprint=engine.loaded.fingerprint,
            backend=engine.backend,
            held=dict(engine.precisions),
            refused=refused,
        )
        return answer, ()


def _added(engine: Engine, precisions: Sequence[Precision]) -> dict[Precision, str]:
    """Bring an engine to these precisions; return those it cannot have, each with the reason.

    Raises:
        UnsupportedPrecision: it can have none of them.
    """
    refused: dict[Precision, str] = {}
    missing = [each for each in precisions if each not in engine.precisions]
    if missing:
        with ThreadPoolExecutor(1, "prism-precision", _give_way) as behind:
            behind.submit(_add_each, engine, missing, refused).result()
    if refused and len(refused) == len(precisions):
        raise UnsupportedPrecision("; ".join(refused.values()))
    engine.keep(precisions)
    return refused


def _add_each(
    engine: Engine, precisions: Sequence[Precision], refused: dict[Precision, str]
) -> None:
    for precision in precisions:
        try:
            engine.add(precision)
        except UnsupportedPrecision as error:
            refused[precision] = str(error)
        except Exception as error:  # the weights as loaded serve all the same
            refused[precision] = f"{precision} cannot be made here: {type(error).__name__}: {error}"


def _give_way() -> None:
    """Let this thread compute only while nobody else does, where the system can do that."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)
