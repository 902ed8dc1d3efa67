"""The table of what plans are worth, beside a model in `accuracy.json`.

Version 2 is what `prism evaluate` writes: entries of one model's weights. Each says by which
metric, on which data and when it was measured; what it leaves out, the header says. Version 1 has
accuracies only, without intervals of the drop; it is read and never written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prism.errors import MapError, ModelError
from prism.fidelity.summary import Evaluated
from prism.perfmap import Accuracy, PerformanceMap
from prism.perfmap.files import replace_file
from prism.perfmap.schema import AccuracyMetric
from prism.plan import Plan
from prism.version import VERSION

if TYPE_CHECKING:
    from prism.fidelity.samples import Samples

FILE_NAME = "accuracy.json"
_FORMAT = "prism accuracy table"
_VERSION = 2
_DIGITS = 6
# What an entry says for itself: the next measurement of other plans may be of other data.
_OWN = ("metric", "dataset", "data_digest", "kind", "length", "date")


@dataclass(frozen=True, slots=True)
class Subject:
    """What entries are about: the weights they are of, and the data they were measured on.

    Attributes:
        model_hash: fingerprint of the model.
        dataset: name of the data, for people.
        digest: SHA-256 of the samples and their labels.
        samples: how many.
        kind: of the samples.
        length: tokens asked for; None = as long as they are.
    """

    model_hash: str
    dataset: str
    digest: str
    samples: int
    kind: str
    length: int | None

    @classmethod
    def of(cls, model_hash: str, samples: Samples, length: int | None) -> Subject:
        """Describe samples that a model was measured on."""
        return cls(model_hash, samples.name, samples.digest, len(samples), samples.kind, length)


def accuracy_of(files: str, fingerprint: str) -> tuple[Accuracy, ...]:
    """Return what was measured of exactly this model; nothing where nobody measured.

    Args:
        files: where the model's files lie; only a directory can have a table.
        fingerprint: of the loaded model; a table of other weights says nothing about it.

    Raises:
        ModelError: the table is there but cannot be read.
    """
    path = Path(files) / FILE_NAME
    if not files or not path.is_file():
        return ()
    table = _read(path)
    return _entries(path, table) if table["model_hash"] == fingerprint else ()


def check_replaceable(path: Path, model_hash: str, force: bool) -> None:
    """Refuse a table that entries about a model cannot be added to.

    Args:
        path: of the table; where there is none, nothing is refused.
        model_hash: fingerprint of the model.
        force: a table of something else may be replaced.

    Raises:
        ModelError: it is of other weights, or no table; names it.
    """
    if not path.exists() or force:
        return
    found = _read(path)["model_hash"]
    if found != model_hash:
        raise ModelError(
            f"{path} is a table of other weights ({_short(found)}, not {_short(model_hash)}); "
            f"write another with --out, or use --force"
        )


def write_table(
    path: Path,
    subject: Subject,
    entries: Sequence[Evaluated],
    command: str,
    *,
    force: bool = False,
) -> None:
    """Write entries, together with those of other plans that the table has of the same weights.

    A reader sees the old table or the new one, whole.

    Args:
        path: of the table.
        subject: what the entries are about.
        entries: at least one, all of one metric.
        command: how they were made.
        force: replace a table of something else.

    Raises:
        ModelError: there is a table of other weights.
        MapError: it cannot be written; an older one is unchanged.
    """
    check_replaceable(path, subject.model_hash, force)
    header = _header(subject, entries[0].metric, command)
    own = {name: header[name] for name in _OWN}
    plans = {
        **_kept(path, subject.model_hash),
        **{entry.plan: {**_values(entry), **own} for entry in entries},
    }
    replace_file(path, _format(header, plans))


def tell_map(path: Path, fingerprint: str, entries: Sequence[Evaluated]) -> None:
    """Write what was measured into a map as it is by now: a profile may have gone on with it.

    Args:
        path: of the map.
        fingerprint: of the measured model.
        entries: take the place of older ones of the same plans.

    Raises:
        MapError: the map cannot be read or written, or is of other weights; it stays as it is.
    """
    found = PerformanceMap.load(path)
    if found.model_hash != fingerprint:
        raise MapError(
            f"{path} has become a map of other weights and stays as it is; the table is written, "
            f"give --map a map of this model to have the result there too"
        )
    found.with_accuracy(entry.for_map() for entry in entries).save(path)


def _header(subject: Subject, metric: AccuracyMetric, command: str) -> dict[str, Any]:
    """Return what a table says first, of the model and of the latest measurement."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "model_hash": subject.model_hash,
        "dataset": subject.dataset,
        "data_digest": subject.digest,
        "samples": subject.samples,
        "kind": subject.kind,
        "length": subject.length,
        "metric": metric,
        "interval": "95 % of the drop, drop_low..drop_high",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": command,
        "software": {
            "prism": VERSION,
            **{name: version(name) for name in ("torch", "transformers")},
        },
    }


def _kept(path: Path, model_hash: str) -> dict[str, Any]:
    """Return the entries of a table that stay: those about the same weights."""
    try:
        table = _read(path) if path.exists() else {}
    except ModelError:  # to be replaced by force
        return {}
    if table.get("model_hash") != model_hash:
        return {}
    # A table of version 1 names no metric.
    said = {"metric": "accuracy", **{name: table[name] for name in _OWN if name in table}}
    return {plan: {**values, **said, **values} for plan, values in table["plans"].items()}


def _values(entry: Evaluated) -> dict[str, Any]:
    values = {
        "accuracy": entry.accuracy,
        "drop": entry.drop,
        "drop_low": entry.drop_low,
        "drop_high": entry.drop_high,
        "count": entry.count,
        "longest": entry.longest,
        **entry.extras,
    }
    return {
        name: round(value, _DIGITS) if isinstance(value, float) else value
        for name, value in values.items()
    }


def _format(header: Mapping[str, Any], plans: Mapping[str, Any]) -> str:
    """Return JSON with a line per header field and a line per plan."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in header.items()]
    rows = ",\n".join(f"    {json.dumps(key)}: {json.dumps(row)}" for key, row in plans.items())
    return "\n".join(["{", *lines, '  "plans": {', rows, "  }", "}"]) + "\n"


def _read(path: Path) -> dict[str, Any]:
    """Return a table whose entries are valid."""
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "model_hash" not in table:
            raise KeyError("model_hash")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error
    _entries(path, table)
    return table


def _entries(path: Path, table: Mapping[str, Any]) -> tuple[Accuracy, ...]:
    try:
        return tuple(_entry(text, values, table) for text, values in table["plans"].items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path} is no accuracy table ({error!r}); measure it again with `prism evaluate --force`"
    )


def _entry(text: str, values: Mapping[str, Any], table: Mapping[str, Any]) -> Accuracy:
    said = {**table, **values}
    entry = Accuracy(
        plan=Plan.parse(text).shape,
        accuracy=float(values["accuracy"]),
        drop=float(values["drop"]),
        count=int(values["count"]),
        task=str(said.get("dataset", "")),
        longest=values.get("longest"),
    )
    if "drop_low" not in values and said.get("metric", "accuracy") == "accuracy":  # of version 1
        return entry
    return replace(
        entry,
        metric=cast(AccuracyMetric, said["metric"]),
        drop_low=float(values["drop_low"]),
        drop_high=float(values["drop_high"]),
    )


def _short(fingerprint: object) -> str:
    return str(fingerprint)[:12]
