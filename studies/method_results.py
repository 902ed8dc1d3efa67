"""What a study has measured so far, in one JSON file that is whole at any moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from studies.packages import StudyError

from prism.version import VERSION

Stage = Literal["before", "after"]


class Results:
    """The results of one study, kept in a file after every plan.

    Args:
        path: the JSON file.
        study: its name.
        setting: what all stages must have in common: samples, length, seed; None = whatever the
            file has.
        force: whether results of another setting, or of other weights, may be thrown away.

    Raises:
        StudyError: the file holds something else and `force` is not given.
    """

    def __init__(
        self, path: Path, study: str, setting: Mapping[str, int] | None, force: bool = False
    ) -> None:
        self.path = path
        self._force = force
        self.content: dict[str, Any] = {"study": study}
        if setting is not None:
            self.content["setting"] = dict(setting)
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text())
            same = all(found[key] == self.content[key] for key in self.content)
        except (ValueError, KeyError, TypeError):
            found, same = {}, False
        if same:
            self.content = found
        elif not force:
            raise StudyError(
                f"{path} holds results of another setting ({found.get('setting')}); give the same "
                f"options, --force to start anew, or another --out"
            )

    def begin(self, stage: Stage, fingerprint: str, command: str) -> None:
        """Start or go on with a stage; what it measured of the same weights is kept.

        Raises:
            StudyError: it measured other weights and `force` is not given.
        """
        known = self.content.get(stage)
        if known and known["fingerprint"] == fingerprint:
            return
        if known and not self._force:
            raise StudyError(
                f"{self.path} has {stage} of other weights ({known['fingerprint'][:12]}); give "
                f"--force to measure anew, or another --out"
            )
        self.content[stage] = {
            "fingerprint": fingerprint,
            "command": command,
            "date": today(),
            "versions": versions(),
            "plans": {},
        }
        self._save()

    def plans(self, stage: Stage) -> dict[str, dict[str, float]]:
        """Return what a stage measured so far, by plan."""
        found: dict[str, dict[str, float]] = self.content.get(stage, {}).get("plans", {})
        return found

    def add(self, stage: Stage, plan: str, row: Mapping[str, float]) -> None:
        """Keep what was measured of one plan."""
        self.content[stage]["plans"][plan] = dict(row)
        self._save()

    def note(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep something else that a report needs."""
        self.content[key] = dict(value)
        self._save()

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(self.content, indent=2) + "\n")
        partial.replace(self.path)


def today() -> str:
    """Return the date, UTC."""
    return datetime.now(timezone.utc).date().isoformat()


def versions() -> dict[str, str]:
    """Return the versions that figures depend on."""
    return {"prism": VERSION, **{name: version(name) for name in ("torch", "transformers")}}
