"""What an evaluation has measured so far, kept beside the table it will become.

Per plan one row of figures for each sample, in the order in which they are measured, so that an
evaluation stopped at any moment goes on from there, with the same plans or with others.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from prism.errors import RequestError
from prism.perfmap.files import replace_file
from prism.perfmap.schema import AccuracyMetric

# Writing may take this part of the time; a sample of a large model is noted as soon as measured.
_WRITING_SHARE = 0.05

Rows = list[list[float]]


class Measured:
    """Rows of figures by plan shape, on disk.

    Args:
        path: the file; None keeps everything in memory only.
        identity: of what the rows depend on besides the plan. A file of another one is not
            continued.
        metric: what a row holds.

    Raises:
        RequestError: the file is there and cannot be read.
    """

    def __init__(self, path: Path | None, identity: str, metric: AccuracyMetric) -> None:
        self._path = path
        self._belongs = hashlib.sha256(json.dumps([identity, metric]).encode()).hexdigest()
        self._rows: dict[str, Rows] = {}
        self._saved_s = time.monotonic()
        self._writing_s = 0.0
        self._unsaved = False
        if path is not None:
            self._read(path)

    def rows(self, shape: str) -> Rows:
        """Return what was measured of a plan, in the order of measuring."""
        return self._rows.setdefault(shape, [])

    def add(self, shape: str, start: int, rows: Rows) -> None:
        """Note what comes after `start` samples; a half-measured batch is replaced."""
        self.rows(shape)[start:] = rows
        self._unsaved = True

    def save_soon(self) -> None:
        """Write what is new, unless writing would take a large part of the time.

        Raises:
            MapError: it cannot be written.
        """
        if time.monotonic() - self._saved_s >= self._writing_s / _WRITING_SHARE:
            self.save()

    def save(self) -> None:
        """Write what is new.

        Raises:
            MapError: it cannot be written; what was written before is still there.
        """
        if self._path is None or not self._unsaved:
            return
        started_s = time.monotonic()
        replace_file(self._path, json.dumps({"belongs": self._belongs, "rows": self._rows}))
        self._saved_s = time.monotonic()
        self._writing_s = self._saved_s - started_s
        self._unsaved = False

    def _read(self, path: Path) -> None:
        try:
            document = json.loads(path.read_text())
            if document["belongs"] == self._belongs:
                self._rows = {
                    str(shape): [[float(value) for value in row] for row in rows]
                    for shape, rows in document["rows"].items()
                }
        except FileNotFoundError:
            return
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error.strerror}; remove it") from error
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # torn or foreign: measured again from the start
