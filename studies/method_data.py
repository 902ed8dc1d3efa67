"""What the study of the method measures and trains on: Brown texts and e-mails, split for good.

Every fifth file of the Brown corpus is held out: all genres are in both parts, and no text that is
measured has a neighbour that was trained on.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.corpora import read_lines, write_lines

HELD_OUT_EVERY = 5
Entry = Mapping[str, str]


@dataclass(frozen=True)
class StudyData:
    """Where the parts lie: two folders of text files, two JSONL files with `text` and `label`."""

    train: Path
    held_out: Path
    probe_mails: Path
    test_mails: Path


def split_by_file(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return the texts to train on and the held-out ones."""
    ordered = sorted(entries, key=lambda entry: entry["file"])
    return (
        [entry for index, entry in enumerate(ordered) if index % HELD_OUT_EVERY],
        ordered[::HELD_OUT_EVERY],
    )


def draw_mails(
    entries: Sequence[Entry], probe: int, test: int, seed: int
) -> tuple[list[Entry], list[Entry]]:
    """Draw mails to fit a probe on and mails to measure, half of each spam, none in both.

    A text that occurs twice is drawn once at most: mailing lists deliver some mails again.
    """
    rng = random.Random(seed)
    parts: tuple[list[Entry], list[Entry]] = [], []
    for label in ("ham", "spam"):
        texts = sorted({entry["text"] for entry in entries if entry["label"] == label})
        chosen = iter(rng.sample(texts, (probe + test) // 2))
        for part, count in zip(parts, (probe // 2, test // 2), strict=True):
            part += [{"text": next(chosen), "label": label} for _ in range(count)]
    for part in parts:
        rng.shuffle(part)
    return parts


def write_data(
    folder: Path, brown: Path, spam: Path | None, probe: int, test: int, seed: int
) -> StudyData:
    """Write the parts below `folder`, replacing what is there.

    Args:
        folder: to write to.
        brown: brown.jsonl.
        spam: spam.jsonl; None = no mails are needed.
        probe, test: mails to fit a probe on, and to measure.
        seed: of the draw of the mails.
    """
    data = StudyData(
        folder / "brown-train",
        folder / "brown-held-out",
        folder / "mails-probe.jsonl",
        folder / "mails-test.jsonl",
    )
    parts = split_by_file(read_lines(brown))
    for path, entries in zip((data.train, data.held_out), parts, strict=True):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        for entry in entries:
            (path / f"{entry['file']}.txt").write_text(entry["text"] + "\n", encoding="utf-8")
    if spam is not None:
        drawn = draw_mails(read_lines(spam), probe, test, seed)
        for path, entries in zip((data.probe_mails, data.test_mails), drawn, strict=True):
            write_lines(path, entries)
    return data
