"""Which nodes hold a model: brought there off the path of requests, node by node.

A node that cannot have the model, or holds other weights, is left out with its reason and asked
again later. Requests only ever see who is ready.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prism.control import messages
from prism.coordinator.backoff import Backoff
from prism.coordinator.coordinator import Coordinator
from prism.errors import ClusterError, ConfigError, PeerLost, PrismError

_TIMEOUT_S = 900.0
# A request that names a node which came a moment ago waits for it so long after it came.
_WELCOME_S = 3.0


@dataclass(frozen=True, slots=True)
class _Holding:
    """What is known of one node's process and the model.

    Attributes:
        instance: of the process.
        since_s: when loading began, on `time.monotonic()`.
        ready: whether the model is in its memory.
        refusal: why it does not have the model; empty while it is being loaded.
    """

    instance: str
    since_s: float
    ready: bool = False
    refusal: str = ""


class ModelNodes:
    """Where one model is in memory.

    Args:
        coordinator: talks to the nodes.
        model: its number in messages.
        source: what the nodes are told to load.
        dtype: of the weights.

    Attributes:
        fingerprint: of the weights; the same on all nodes that are ready.
    """

    def __init__(self, coordinator: Coordinator, model: int, source: str, dtype: str) -> None:
        self.fingerprint = ""
        self._coordinator = coordinator
        self._model = model
        self._source = source
        self._dtype = dtype
        self._holdings: dict[str, _Holding] = {}
        self._retries = Backoff()
        self._changed = threading.Condition()
        self._closed = False

    def load_everywhere(self) -> None:
        """Load on all nodes alive; from here on nodes that come later load by themselves.

        Raises:
            ModelError, UnsupportedModel: a node cannot have the model.
            ConfigError: nodes hold different weights.
            PeerLost: nobody is left.
        """
        self._coordinator.follow(self._follow)
        try:
            self._load(self._coordinator.alive)
            if not self.ready(self._coordinator.alive):
                raise PeerLost("no node is left to hold the model; start the cluster again")
        except BaseException:
            self.unload()
            raise

    def ready(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return those of `names` whose process has the model, in the same order."""
        with self._changed:
            return tuple(name for name in names if self._has(name))

    def refusals(self) -> Mapping[str, str]:
        """Return by node why it does not have the model."""
        with self._changed:
            return {name: each.refusal for name, each in self._holdings.items() if each.refusal}

    def welcome(self, names: Sequence[str]) -> None:
        """Wait for those of `names` that came a moment ago and are just loading; never long."""

        def latest_s() -> float:
            """Return how long the youngest is still to be waited for."""
            loading = [
                each.since_s + _WELCOME_S - time.monotonic()
                for name, each in self._holdings.items()
                if name in names and not each.ready and not each.refusal
            ]
            return max(loading, default=0.0)

        with self._changed:
            while (left_s := latest_s()) > 0.0:
                self._changed.wait(left_s)

    def unload(self) -> None:
        """Let every node give its memory back, and load on none that comes. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._holdings.clear()
            self._changed.notify_all()
        self._coordinator.unfollow(self._follow)
        self._coordinator.tell(self._coordinator.alive, messages.Unload(model=self._model))

    def _has(self, name: str) -> bool:
        holding = self._holdings.get(name)
        if holding is None or not holding.ready:
            return False
        return holding.instance == self._coordinator.hello(name).instance

    def _load(self, names: Sequence[str]) -> None:
        """Load on `names` at once; those that die meanwhile are left out."""
        call = self._coordinator.call()
        load = messages.Load(
            request=call.request, model=self._model, source=self._source, dtype=self._dtype
        )
        waiting = list(names)
        deadline_s = time.monotonic() + _TIMEOUT_S
        try:
            for name in names:
                self._note(name)
                self._coordinator.tell([name], load)
            while waiting := [name for name in waiting if name in self._coordinator.alive]:
                try:
                    heard = call.answer(deadline_s, waiting)
                except PeerLost:
                    continue
                self._check_fingerprint(heard.name, heard.message.fingerprint)
                self._note(heard.name, ready=True)
                waiting.remove(heard.name)
        finally:
            self._coordinator.end(call)

    def _note(self, name: str, *, ready: bool = False, refusal: str = "") -> None:
        instance = self._coordinator.hello(name).instance
        with self._changed:
            before = self._holdings.get(name)
            same = before is not None and before.instance == instance
            since_s = before.since_s if before and same else time.monotonic()
            if not self._closed:
                self._holdings[name] = _Holding(instance, since_s, ready, refusal)
            self._changed.notify_all()

    def _check_fingerprint(self, name: str, fingerprint: str) -> None:
        with self._changed:
            if not self.fingerprint:
                self.fingerprint = fingerprint
            if fingerprint == self.fingerprint:
                return
            others = ", ".join(other for other in self._holdings if self._has(other))
        self._coordinator.tell([name], messages.Unload(model=self._model))
        raise ConfigError(
            f"{name} holds another model than {others}: {fingerprint[:12]} against "
            f"{self.fingerprint[:12]}; copy the same {self._source} to both"
        )

    # -- nodes that come later --------------------------------------------------------------------

    def _follow(self, name: str, alive: bool) -> None:
        if not alive:
            with self._changed:
                self._holdings.pop(name, None)
                self._changed.notify_all()
            return
        self._note(name)  # at once, so that a request which follows knows that it is coming
        threading.Thread(
            target=self._load_late, args=(name,), name="prism-load", daemon=True
        ).start()

    def _load_late(self, name: str) -> None:
        """Load on a node that came, or that could not when it was asked before."""
        if self._closed or name not in self._coordinator.alive:
            return
        try:
            self._load([name])
            self._retries = self._retries.worked(name)
        except ClusterError as error:
            self._refuse(name, str(error))
        except PrismError as error:
            self._refuse(name, f"it cannot have the model: {error}")

    def _refuse(self, name: str, reason: str) -> None:
        if self._closed:
            return
        now_s = time.monotonic()
        self._note(name, refusal=reason)
        self._retries = self._retries.failed(name, reason, now_s)
        pause_s = self._retries.troubles[name].until_s - now_s
        logging.getLogger(__name__).warning("%s is left out: %s", name, reason)
        timer = threading.Timer(pause_s, self._load_late, (name,))
        timer.daemon = True
        timer.start()
