"""What a profile has measured so far, kept beside the map it will become.

Written after every turn of measurements, so that Ctrl-C, a crash or a power cut loses one turn at
most. The map itself is only touched when the profile is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prism.core import RunRecord
from prism.errors import MapError
from prism.perfmap import ClusterIdentity, MapLink, PerformanceMap
from prism.perfmap.files import replace_file
from prism.profiler.points import Point, Settings


class Notebook:
    """Records by point, on disk.

    Args:
        path: of the map; the notebook lies beside it.
        identity: the model and nodes; a notebook of others is not continued.
        settings: likewise.
    """

    def __init__(self, path: Path, identity: ClusterIdentity, settings: Settings) -> None:
        self.path = path.with_name(path.name + ".partial")
        self.link: MapLink | None = None
        self.seconds_spent = 0.0
        self._belongs = _fingerprint(identity, settings)
        self._records: dict[str, list[RunRecord]] = {}
        self._read()

    @property
    def runs(self) -> int:
        """Number of runs recorded."""
        return sum(len(records) for records in self._records.values())

    def records(self, point: Point) -> list[RunRecord]:
        """Return what was measured at a point."""
        return list(self._records.get(_key(point), ()))

    def add(self, point: Point, record: RunRecord) -> None:
        """Note a run; `save` writes it."""
        self._records.setdefault(_key(point), []).append(record)

    def save(self) -> None:
        """Write the notebook.

        Raises:
            MapError: it cannot be written; what was written before is still there.
        """
        document: Mapping[str, Any] = {
            "belongs": self._belongs,
            "seconds_spent": self.seconds_spent,
            "link": asdict(self.link) if self.link else None,
            "records": {
                key: [record.to_dict() for record in records]
                for key, records in self._records.items()
            },
        }
        replace_file(self.path, json.dumps(document))

    def finish(self, perf: PerformanceMap, path: Path) -> None:
        """Write the map and discard the notebook."""
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
            self.link = MapLink(**link) if link else None
            self.seconds_spent = float(document["seconds_spent"])
            self._records = records
        except FileNotFoundError:
            return
        except OSError as error:
            raise MapError(f"{self.path} cannot be read: {error.strerror}; remove it") from error
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # torn or foreign: measured again from the start


def _key(point: Point) -> str:
    return f"{point.plan} {point.batch} {point.length}"


def _fingerprint(identity: ClusterIdentity, settings: Settings) -> str:
    text = json.dumps([asdict(identity), asdict(settings)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
