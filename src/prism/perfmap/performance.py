"""The map as a whole: header, measurements, accuracy, and the question whether it applies here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from prism.errors import InputError, MapError
from prism.perfmap.checks import (
    build,
    differences,
    require_integer,
    require_number,
    require_text,
)
from prism.perfmap.coding import CodingTimes
from prism.perfmap.files import format_document, parse_document, read_document, replace_file
from prism.perfmap.predicted import HeldOut, LeftOutPoint
from prism.perfmap.schema import (
    Accuracy,
    MapLink,
    Measurement,
    NodeInfo,
    Payload,
)
from prism.perfmap.surface import Surface
from prism.plan import ModelShape, Plan

FORMAT = "prism performance map"
VERSION = 1
EXAMPLES = {"paper": "orin-nano-vit-b16.json"}


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """What a map must have been measured on to be of use: the model and the nodes in order."""

    model_hash: str
    nodes: tuple[NodeInfo, ...]


@dataclass(frozen=True)
class PerformanceMap:
    """Everything measured about one model on one cluster.

    Attributes:
        model_hash: identity of the weights and configuration.
        model: what costs depend on.
        nodes: as measured, in the cluster's order.
        link: as measured, with the fitted cost of an exchange.
        payload: bytes per sample in and out.
        date: ISO 8601.
        prism_version: that measured.
        passes: forward passes in all.
        seconds_spent: duration of the whole profile.
        energy_scope: what `energy_j` covers, in words; empty = nobody measured.
        source: where the figures come from, in words.
        left_out: points that did not fit into the profile's budget.
        budget_s: of the profile; None = it had none.
        coding: of images on each node; empty = nobody measured, and images travel as they are.
    """

    model_hash: str
    model: ModelShape
    nodes: tuple[NodeInfo, ...]
    link: MapLink
    measurements: tuple[Measurement, ...]
    payload: Payload = Payload()
    accuracy: tuple[Accuracy, ...] = ()
    held_out: tuple[HeldOut, ...] = ()
    date: str = ""
    prism_version: str = ""
    passes: int = 1
    seconds_spent: float = 0.0
    energy_scope: str = ""
    source: str = ""
    left_out: tuple[LeftOutPoint, ...] = ()
    budget_s: float | None = None
    coding: tuple[CodingTimes, ...] = ()

    def __post_init__(self) -> None:
        require_text("model_hash", self.model_hash)
        require_integer("passes", self.passes)
        require_number("seconds_spent", self.seconds_spent)
        if self.budget_s is not None:
            require_number("budget_s", self.budget_s)
        for name in ("date", "prism_version", "energy_scope", "source"):
            if not isinstance(getattr(self, name), str):
                raise MapError(f"{name} must be a text, not {getattr(self, name)!r}")
        if not self.nodes:
            raise MapError("nodes is empty; a map names at least the first node")
        _refuse_twice("node", [node.name for node in self.nodes])
        _refuse_twice("measurement", [entry.key for entry in self.measurements])
        _refuse_twice("accuracy of", [entry.plan for entry in self.accuracy])
        _refuse_twice("coding of", [entry.node for entry in self.coding])

    @cached_property
    def _by_key(self) -> dict[tuple[str, int, int], Measurement]:
        return {entry.key: entry for entry in self.measurements}

    @cached_property
    def by_shape(self) -> dict[str, tuple[Measurement, ...]]:
        """Measurements by plan shape, in the order in which shapes first appear."""
        grouped: dict[str, list[Measurement]] = {}
        for entry in self.measurements:
            grouped.setdefault(entry.plan, []).append(entry)
        return {shape: tuple(entries) for shape, entries in grouped.items()}

    @cached_property
    def accuracy_by_shape(self) -> dict[str, Accuracy]:
        """Measured accuracy by plan shape."""
        return {entry.plan: entry for entry in self.accuracy}

    def with_accuracy(self, entries: Iterable[Accuracy]) -> PerformanceMap:
        """Return this map with what was measured of its model's answers since.

        An entry takes the place of an older one of the same plan shape.
        """
        newer = {entry.plan: entry for entry in entries}
        return replace(self, accuracy=tuple({**self.accuracy_by_shape, **newer}.values()))

    def lookup(self, plan: Plan, batch: int, length: int) -> Measurement | None:
        """Return what was measured at exactly this point, or None."""
        return self._by_key.get((plan.shape, batch, length))

    def surface(self, shape: str, name: str) -> Surface | None:
        """Return one quantity of a plan over batch and length, or None where nobody measured."""
        points = {
            (entry.batch, entry.length): getattr(entry, name).median
            for entry in self.by_shape.get(shape, ())
            if getattr(entry, name) is not None
        }
        return Surface(points) if points else None

    def check(self, cluster: ClusterIdentity) -> None:
        """Refuse this map for a cluster it was not measured on.

        Helpers may be missing: the map then covers the nodes that are there.

        Raises:
            MapError: names every difference: model, first node, nodes that were not measured,
            versions, dtype, backend, hardware.
        """
        found = differences({"model": self.model_hash}, {"model": cluster.model_hash})
        ours = {node.name: node for node in self.nodes}
        theirs = {node.name: node for node in cluster.nodes}
        extra = [name for name in theirs if name not in ours]
        if extra:
            found.append(f"the map lacks {', '.join(extra)}")
        first = self.nodes[0].name
        if first not in theirs:
            found.append(f"the cluster lacks {first}, the first node of the map")
        elif cluster.nodes[0].name not in (first, *extra):
            found.append(f"the first node is {cluster.nodes[0].name}, the map has {first}")
        for name in (name for name in ours if name in theirs):
            between = differences(asdict(ours[name]), asdict(theirs[name]))
            found.extend(f"{name}: {phrase}" for phrase in between)
        if found:
            raise MapError(
                f"the performance map was measured on something else: {'; '.join(found)}; "
                f"run `prism profile` on this cluster"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        header = {"format": FORMAT, "version": VERSION}
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        lists = ("nodes", "measurements", "accuracy", "held_out", "left_out", "coding")
        for name in ("model", "link", "payload"):
            values[name] = asdict(values[name])
        for name in lists:
            values[name] = [
                entry.to_dict() if isinstance(entry, Measurement) else asdict(entry)
                for entry in values.pop(name)
            ]
        return {**header, **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PerformanceMap:
        """Read what `to_dict` wrote.

        Raises:
            MapError: not a performance map, of a future version, or with a wrong value.
        """
        if values.get("format") != FORMAT:
            raise MapError("this is JSON, but no performance map; make one with `prism profile`")
        version = values.get("version")
        if version != VERSION:
            raise MapError(
                f"format version {version!r} is not {VERSION}, the one this prism reads; "
                f"update prism, or make the map again with `prism profile`"
            )
        nested = {
            "model": _shape(values.get("model")),
            "link": build(MapLink, values.get("link")),
            "payload": build(Payload, values.get("payload", {})),
            "nodes": tuple(build(NodeInfo, entry) for entry in _list(values, "nodes")),
            "measurements": tuple(map(Measurement.from_dict, _list(values, "measurements"))),
            "accuracy": tuple(build(Accuracy, entry) for entry in _list(values, "accuracy")),
            "held_out": tuple(build(HeldOut, entry) for entry in _list(values, "held_out")),
            "left_out": tuple(build(LeftOutPoint, entry) for entry in _list(values, "left_out")),
            "coding": tuple(build(CodingTimes, entry) for entry in _list(values, "coding")),
        }
        return build(cls, {**values, **nested})

    def save(self, path: str | Path) -> None:
        """Write the map to `path`, replacing an older one in one step.

        Raises:
            MapError: it cannot be written; an older map there is unchanged.
        """
        replace_file(Path(path), format_document(self.to_dict()))

    @classmethod
    def load(cls, path: str | Path) -> PerformanceMap:
        """Read the map in `path`.

        Raises:
            MapError: names the file and what is wrong with it.
        """
        return _named(str(path), read_document(Path(path)))

    @classmethod
    def paper(cls) -> PerformanceMap:
        """Return the map made of the paper's published tables (arXiv 2605.25682)."""
        return load_example("paper")


def load_example(name: str) -> PerformanceMap:
    """Return a map that ships with prism.

    Raises:
        MapError: there is no such example; names those there are.
    """
    if name not in EXAMPLES:
        raise MapError(f"no example map is called {name!r}; there is {', '.join(EXAMPLES)}")
    file = resources.files("prism") / "data" / "maps" / EXAMPLES[name]
    return _named(name, parse_document(file.read_text(encoding="utf-8"), name))


def _named(name: str, document: dict[str, Any]) -> PerformanceMap:
    try:
        return PerformanceMap.from_dict(document)
    except InputError as error:
        raise MapError(f"{name}: {error}") from None


def _list(values: dict[str, Any], name: str) -> list[Any]:
    entries = values.get(name, [])
    if not isinstance(entries, list):
        raise MapError(f"{name} must be a list, not {entries!r}")
    return entries


def _refuse_twice(what: str, keys: list[Any]) -> None:
    seen = set()
    for key in keys:
        if key in seen:
            raise MapError(f"{what} {key} appears twice; keep one")
        seen.add(key)


def _shape(values: Any) -> ModelShape:
    """Read a `ModelShape`, whose dataclass trusts its caller."""
    shape = build(ModelShape, values)
    require_text("model family", shape.family)
    for name in ("blocks", "hidden", "row_elements", "max_length"):
        require_integer(f"model {name}", getattr(shape, name), 1)
    for name in ("causal", "rotary"):
        if not isinstance(getattr(shape, name), bool):
            raise MapError(f"model {name} must be true or false, not {getattr(shape, name)!r}")
    return shape
