"""Which nodes hold a model, and at which precisions: brought there off the path of requests.

A node that cannot have the model, or holds other weights, is left out with its reason and asked
again later. A precision that a node cannot have is left out on that node alone. Requests only ever
see who is ready.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from prism.control import messages
from prism.coordinator.backoff import Backoff
from prism.coordinator.coordinator import Coordinator
from prism.errors import (
    ClusterError,
    ConfigError,
    PeerLost,
    PrismError,
    UnsupportedPrecision,
)
from prism.plan import PRECISIONS, Precision

_TIMEOUT_S = 900.0
# A request that names a node which came a moment ago waits for it so long after it came.
_WELCOME_S = 3.0


@dataclass(frozen=True, slots=True)
class _Holding:
    """What is known of one node's process and the model.

    Attributes:
        instance: of the process.
        since_s: when loading began, on `time.monotonic()`.
        backend: that runs it there.
        held: by precision at which it is in memory, the bytes of its weights.
        refused: by precision that it cannot have, why.
        refusal: why it does not have the model at all; empty while it is being loaded.
    """

    instance: str
    since_s: float
    backend: str = "eager"
    held: Mapping[Precision, int] = field(default_factory=dict)
    refused: Mapping[Precision, str] = field(default_factory=dict)
    refusal: str = ""


class ModelNodes:
    """Where one model is in memory.

    Args:
        coordinator: talks to the nodes.
        model: its number in messages.
        source: what the nodes are told to load.
        dtype: of the weights.
        precisions: that the nodes hold, and no others; None = float32, and others when they are
            asked for.

    Attributes:
        fingerprint: of the weights; the same on all nodes that are ready.
        alone: the precision at which every node that is ready has the model.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        model: int,
        source: str,
        dtype: str,
        precisions: Sequence[Precision] | None = None,
    ) -> None:
        self.fingerprint = ""
        bound = None if precisions is None else tuple(precisions)
        keeps_float32 = bound is None or "float32" in bound
        self.alone: Precision = "float32" if bound is None or keeps_float32 else bound[0]
        self._coordinator = coordinator
        self._model = model
        self._source = source
        self._dtype = dtype
        self._bound = bound
        # Without float32 all must be made at once: what they are made of is dropped then.
        self._wanted = (self.alone,) if bound is None or keeps_float32 else bound
        self._holdings: dict[str, _Holding] = {}
        self._retries = Backoff()
        self._changed = threading.Condition()
        self._closed = False

    def load_everywhere(self) -> None:
        """Load on all nodes alive; from here on nodes that come later load by themselves.

        Where float32 is kept the other precisions are made meanwhile.

        Raises:
            ModelError, UnsupportedModel: a node cannot have the model.
            ConfigError: nodes hold different weights.
            PeerLost: nobody is left.
        """
        self._coordinator.follow(self._follow)
        try:
            self._load(self._coordinator.alive)
            if not self.ready(self._coordinator.alive):
                self._check_refusals()
                raise PeerLost("no node is left to hold the model; start the cluster again")
        except BaseException:
            self.unload()
            raise
        if self._bound is not None:
            self.want(self._bound)

    def ready(self, names: Sequence[str], precision: Precision | None = None) -> tuple[str, ...]:
        """Return those of `names` whose process has the model, in the same order.

        Args:
            names: nodes.
            precision: at which it must be there; None = that which all have.
        """
        with self._changed:
            return tuple(name for name in names if self._has(name, precision or self.alone))

    def refusals(self) -> Mapping[str, str]:
        """Return by node why it does not have the model."""
        with self._changed:
            return {name: each.refusal for name, each in self._holdings.items() if each.refusal}

    def held(self) -> Mapping[str, Mapping[Precision, int]]:
        """Return by node the bytes of the weights by precision; shared ones count in each."""
        with self._changed:
            return {name: each.held for name, each in self._holdings.items()}

    def backend(self, name: str) -> str:
        """Return what runs the model on a node."""
        with self._changed:
            holding = self._holdings.get(name)
            return "eager" if holding is None else holding.backend

    def missing(self, names: Sequence[str], precision: Precision) -> dict[str, str]:
        """Return those of `names` that do not have the model at a precision, with the reason."""
        with self._changed:
            return {
                name: self._reason(name, precision)
                for name in names
                if not self._has(name, precision)
            }

    def lacking(self, names: Iterable[str]) -> dict[str, dict[Precision, str]]:
        """Return by node at which precisions it does not have the model, and why."""
        with self._changed:
            return {
                name: {
                    each: self._reason(name, each)
                    for each in PRECISIONS
                    if not self._has(name, each)
                }
                for name in names
            }

    def want(self, precisions: Iterable[Precision]) -> None:
        """Let all nodes make what they may of these precisions, in the background."""
        with self._changed:
            new = [
                each
                for each in precisions
                if each not in self._wanted and (self._bound is None or each in self._bound)
            ]
            if not new:
                return
            self._wanted = tuple(dict.fromkeys((*self._wanted, *new)))
            names = [name for name, each in self._holdings.items() if each.held]
        for name in names:
            _in_background(self._add, name)

    def provide(self, precision: Precision, names: Sequence[str], until_s: float) -> None:
        """Let nodes have the model at a precision, and wait for those that are making it.

        Args:
            precision: that a caller asked for.
            names: nodes that it is wanted on; those that are away are not waited for.
            until_s: on `time.monotonic()`, how long at most.

        Raises:
            UnsupportedPrecision: a node cannot have it, or this cluster keeps other precisions.
        """
        if self._bound is not None and precision not in self._bound:
            raise UnsupportedPrecision(
                f"the nodes keep {self._source} in {', '.join(self._bound)} only; add {precision} "
                f"to `precisions` where the model is loaded, or in cluster.yaml"
            )
        self.want([precision])
        self._ask_again(precision, names)

        def making() -> bool:
            alive = self._coordinator.alive
            holdings = (self._holdings.get(name) for name in names if name in alive)
            return any(
                each is not None
                and bool(each.held)
                and precision not in each.held
                and precision not in each.refused
                for each in holdings
            )

        with self._changed:
            while not self._closed and making() and (left_s := until_s - time.monotonic()) > 0:
                self._changed.wait(None if math.isinf(left_s) else left_s)
            refused = {
                name: self._holdings[name].refused[precision]
                for name in names
                if name in self._holdings and precision in self._holdings[name].refused
            }
        for name, reason in refused.items():
            raise UnsupportedPrecision(f"{name}: {reason}")

    def _ask_again(self, precision: Precision, names: Sequence[str]) -> None:
        """Forget that nodes refused a precision: there may be memory for it by now."""
        with self._changed:
            again = [
                name
                for name in names
                if name in self._holdings and precision in self._holdings[name].refused
            ]
            for name in again:
                holding = self._holdings[name]
                refused = {k: why for k, why in holding.refused.items() if k != precision}
                self._holdings[name] = replace(holding, refused=refused)
        for name in again:
            _in_background(self._add, name)

    def welcome(self, names: Sequence[str]) -> None:
        """Wait for those of `names` that came a moment ago and are just loading; never long."""

        def latest_s() -> float:
            """Return how long the youngest is still to be waited for."""
            loading = [
                each.since_s + _WELCOME_S - time.monotonic()
                for name, each in self._holdings.items()
                if name in names and not each.held and not each.refusal
            ]
            return max(loading, default=0.0)

        with self._changed:
            while (left_s := latest_s()) > 0.0:
                self._changed.wait(left_s)

    def unload(self) -> None:
        """Let every node give the model's memory back, and load on none that comes.

        Safe to call twice.
        """
        with self._changed:
            self._closed = True
            self._holdings.clear()
            self._changed.notify_all()
        self._coordinator.unfollow(self._follow)
        self._coordinator.tell(self._coordinator.alive, messages.Unload(model=self._model))

    def _has(self, name: str, precision: Precision) -> bool:
        holding = self._holdings.get(name)
        if holding is None or precision not in holding.held:
            return False
        return holding.instance == self._coordinator.hello(name).instance

    def _reason(self, name: str, precision: Precision) -> str:
        holding = self._holdings.get(name)
        if holding is None or not holding.held:
            return "it is loading" if holding is None else holding.refusal or "it is loading"
        making = "is still being made" if precision in self._wanted else "was not asked for"
        return holding.refused.get(precision, f"{precision} {making} there")

    def _load(self, names: Sequence[str]) -> None:
        """Load on `names` at once what is wanted; those that die meanwhile are left out."""
        call = self._coordinator.call()
        load = messages.Load(
            request=call.request,
            model=self._model,
            source=self._source,
            dtype=self._dtype,
            precisions=self._wanted,
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
                self._note(heard.name, loaded=heard.message)
                waiting.remove(heard.name)
        finally:
            self._coordinator.end(call)

    def _check_refusals(self) -> None:
        """Raise what nodes said of a precision that all of them must have."""
        with self._changed:
            for name, holding in self._holdings.items():
                if self.alone in holding.refused:
                    raise UnsupportedPrecision(f"{name}: {holding.refused[self.alone]}")

    def _note(
        self,
        name: str,
        *,
        loaded: messages.Loaded | None = None,
        refused: Mapping[Precision, str] | None = None,
        refusal: str = "",
    ) -> None:
        """Note what became of loading on a node; nothing given = it begins, or gains precisions."""
        instance = self._coordinator.hello(name).instance
        with self._changed:
            before = self._holdings.get(name)
            if before is None or before.instance != instance:
                before = _Holding(instance, time.monotonic())
            if loaded is not None:
                before = replace(before, backend=loaded.backend, held=loaded.held)
                refused = loaded.refused
            known = {**before.refused, **(refused or {})}
            known = {each: why for each, why in known.items() if each not in before.held}
            if not self._closed:
                self._holdings[name] = replace(before, refused=known, refusal=refusal)
            lacking = {*self._wanted} - {*before.held, *known}
            self._changed.notify_all()
        if loaded is not None and lacking:  # asked for while this node was loading
            _in_background(self._add, name)

    def _check_fingerprint(self, name: str, fingerprint: str) -> None:
        with self._changed:
            if not self.fingerprint:
                self.fingerprint = fingerprint
            if fingerprint == self.fingerprint:
                return
            others = ", ".join(other for other in self._holdings if self._has(other, self.alone))
        self._coordinator.tell([name], messages.Unload(model=self._model))
        raise ConfigError(
            f"{name} holds another model than {others}: {fingerprint[:12]} against "
            f"{self.fingerprint[:12]}; copy the same {self._source} to both"
        )

    def _add(self, name: str) -> None:
        """Let a node that has the model make the precisions that it lacks."""
        try:
            self._load([name])
        except PrismError as error:
            with self._changed:
                holding = self._holdings.get(name)
            if holding is not None:
                lacking = [each for each in self._wanted if each not in holding.held]
                self._note(name, refused=dict.fromkeys(lacking, str(error)))

    # -- nodes that come later --------------------------------------------------------------------

    def _follow(self, name: str, alive: bool) -> None:
        if not alive:
            with self._changed:
                self._holdings.pop(name, None)
                self._changed.notify_all()
            return
        self._note(name)  # at once, so that a request which follows knows that it is coming
        _in_background(self._load_late, name)

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


def _in_background(action: Callable[[str], None], name: str) -> None:
    threading.Thread(target=action, args=(name,), name="prism-load", daemon=True).start()
