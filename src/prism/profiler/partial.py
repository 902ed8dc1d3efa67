"""What a profile has measured so far, kept beside the map it will become.

Written after every turn of measurements, so that Ctrl-C, a crash or a power cut loses one turn at
most. The map itself is only touched when the profile is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prism.errors import MapError
from prism.perfmap import ClusterIdentity, MapLink, PerformanceMap
from prism.perfmap.files import replace_file
from prism.planner.traffic import transfer_s
from prism.profiler.points import Point, Settings
from prism.record import RunRecord

# Exchanges that tell two links apart, and how much longer they may take on the same one.
_TOLD_BY_BYTES = (0, 128_000)
_ALIKE = 1.5
_ALIKE_S = 0.002

ChosenBatches = tuple[float | None, tuple[int, ...]]


class PartialProfile:
    """Records by point, on disk.

    Args:
        path: of the map; the partial lies beside it.
        identity: the model and nodes; a partial of others is not continued.
        settings: likewise.

    Attributes:
        link: over which everything was measured; None before the first `over`.
        seconds_spent: on what is noted.
        passes: forward passes for what is noted, those that warm up included.
        batches: chosen for the model, and for which budget; None before they are.
    """

    def __init__(self, path: Path, identity: ClusterIdentity, settings: Settings) -> None:
        self.path = path.with_name(path.name + ".partial")
        self.link: MapLink | None = None
        self.seconds_spent = 0.0
        self.passes = 0
        self.batches: ChosenBatches | None = None
        self._belongs = _fingerprint(identity, settings)
        self._records: dict[str, list[RunRecord]] = {}
        self._read()

    def is_over(self, link: MapLink) -> bool:
        """Whether what is noted was measured over a link like this one."""
        return self.link is not None and _alike(self.link, link)

    def over(self, link: MapLink) -> None:
        """Go on over this link; forget what was measured over another one."""
        if not self.is_over(link):
            self.link = link
            self.seconds_spent, self.passes, self.batches = 0.0, 0, None
            self._records.clear()

    def records(self, point: Point) -> list[RunRecord]:
        """Return what was measured at a point."""
        return list(self._records.get(_key(point), ()))

    def __iter__(self) -> Iterator[tuple[Point, RunRecord]]:
        """Go through everything measured."""
        for key, records in self._records.items():
            _, batch, length = key.split()
            for record in records:
                yield Point(record.plan, int(batch), int(length)), record

    def add(self, point: Point, record: RunRecord) -> None:
        """Note a run; `save` writes it."""
        self._records.setdefault(_key(point), []).append(record)

    def save(self) -> None:
        """Write the partial.

        Raises:
            MapError: it cannot be written; what was written before is still there.
        """
        document: Mapping[str, Any] = {
            "belongs": self._belongs,
            "seconds_spent": self.seconds_spent,
            "passes": self.passes,
            "link": asdict(self.link) if self.link else None,
            "batches": self.batches,
            "records": {
                key: [record.to_dict() for record in records]
                for key, records in self._records.items()
            },
        }
        replace_file(self.path, json.dumps(document))

    def finish(self, perf: PerformanceMap, path: Path) -> None:
        """Write the map and discard the partial."""
        perf.save(path)
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            document = json.loads(self.path.read_text())
            if document["belongs"] != self._belongs:
                return
            link = document["link"]
            records = {
                key: [RunRecord.from_dict(values) for values in entries]
                for key, entries in document["records"].items()
            }
            known = MapLink(**link) if link else None
            batches = _read_batches(document["batches"])
            seconds_spent, passes = float(document["seconds_spent"]), int(document["passes"])
        except FileNotFoundError:
            return
        except OSError as error:
            raise MapError(f"{self.path} cannot be read: {error.strerror}; remove it") from error
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # torn or foreign: measured again from the start
        self.link, self.seconds_spent, self.passes = known, seconds_spent, passes
        self.batches = batches
        self._records = records


def _read_batches(values: Any) -> ChosenBatches | None:
    if values is None:
        return None
    budget_s, batches = values
    return (
        None if budget_s is None else float(budget_s),
        tuple(int(batch) for batch in batches),
    )


def _key(point: Point) -> str:
    return f"{point.plan} {point.batch} {point.length}"


def _alike(one: MapLink, other: MapLink) -> bool:
    """Whether exchanges, empty and large, take about as long on both."""
    for nbytes in _TOLD_BY_BYTES:
        less_s, more_s = sorted(transfer_s(nbytes, link, link.state()) for link in (one, other))
        if more_s > max(_ALIKE * less_s, less_s + _ALIKE_S):
            return False
    return True


def _fingerprint(identity: ClusterIdentity, settings: Settings) -> str:
    # With more time, or less, the same measurements are continued.
    text = json.dumps([asdict(identity), asdict(replace(settings, budget_s=None))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
