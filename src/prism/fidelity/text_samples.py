"""Texts as samples: tables of texts, text files, and windows of a long text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prism.errors import RequestError
from prism.fidelity.labels import class_indices, is_classifier
from prism.fidelity.sample_set import Read, Samples, take
from prism.models.load import ModelInfo
from prism.models.processing import read_text, tokenizer_of

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
TEXT_SUFFIXES = (".txt", ".text", ".md")
WINDOW = 512  # tokens of a window where nobody says
_TEXT_COLUMNS = ("text", "sentence", "content")
_LABEL_COLUMNS = ("label", "labels", "class")
_PARAGRAPHS = re.compile(r"\n\s*\n")
# Plans need a position per node; a batch of very short texts is padded so far.
_LEAST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    label: str | None = None


def table_samples(
    info: ModelInfo, path: Path, length: int | None, limit: int | None, seed: int
) -> Samples:
    """Return the rows of a CSV, TSV or JSONL file as samples; blank and broken rows are skipped.

    Raises:
        RequestError: the file cannot be read, has no text column, no row that can be used, or a
            label is no class of the model.
    """
    rows = list(_rows(path))
    if info.family.causal and not is_classifier(info):
        texts, skipped = take(rows, _text_of, None, seed)
        _require(texts, path, len(rows))
        return _windows(info, path, [each.text for each in texts], length, limit, seed, skipped)
    texts, skipped = take(rows, _text_of, limit, seed)
    _require(texts, path, len(rows))
    return _padded(info, path, texts, length, skipped)


def file_samples(
    info: ModelInfo,
    root: Path,
    files: Sequence[Path],
    length: int | None,
    limit: int | None,
    seed: int,
) -> Samples:
    """Return plain text files as samples.

    For a causal model, and wherever a length is asked for, all text is cut into windows of that
    many tokens; otherwise each paragraph is a sample (each line, in a file without blank lines).

    Raises:
        RequestError: no file can be read, or there is less text than one window.
    """
    documents, skipped = take(files, _document, None, seed)
    _require(documents, root, len(files))
    if length is not None or (info.family.causal and not is_classifier(info)):
        return _windows(info, root, documents, length, limit, seed, skipped)
    pieces = [piece for document in documents for piece in _paragraphs(document)]
    texts, _ = take(pieces, _Text, limit, seed)
    return _padded(info, root, texts, None, skipped)


def _require(found: Sequence[object], where: Path, tried: int) -> None:
    if not found:
        raise RequestError(f"none of the {tried} texts of {where} can be used; check them")


def _document(path: Path) -> str | None:
    try:
        text = read_text(path)
    except RequestError:
        return None
    return text if text.strip() else None


def _paragraphs(document: str) -> list[str]:
    parts = _PARAGRAPHS.split(document.strip())
    if len(parts) == 1:
        parts = parts[0].splitlines()
    return [part.strip() for part in parts if part.strip()]


def _rows(path: Path) -> Iterator[Mapping[str, Any] | None]:
    """Give the rows of a table; None for one that is broken."""
    text = read_text(path).removeprefix("\ufeff")
    if path.suffix.lower() == ".jsonl":
        for line in filter(str.strip, text.split("\n")):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield row if isinstance(row, dict) else None
        return
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    if not any(column in (table.fieldnames or ()) for column in _TEXT_COLUMNS):
        raise RequestError(
            f"{path} has no column named {', '.join(_TEXT_COLUMNS[:-1])} or {_TEXT_COLUMNS[-1]} "
            f"in its first line; name the column with the texts so"
        )
    try:
        yield from table
    except csv.Error as error:
        raise RequestError(f"{path} is no table that can be read: {error}; correct it") from error


def _text_of(row: Mapping[str, Any] | None) -> _Text | None:
    if row is None:
        return None
    text = next((row[name] for name in _TEXT_COLUMNS if row.get(name)), None)
    if not isinstance(text, str) or not text.strip():
        return None
    label = next((row[name] for name in _LABEL_COLUMNS if row.get(name) not in (None, "")), None)
    if isinstance(label, float) and label.is_integer():  # a class number, written as 1.0
        label = int(label)
    return _Text(text, None if label is None else str(label))


def _padded(
    info: ModelInfo, where: Path, texts: Sequence[_Text], length: int | None, skipped: int
) -> Samples:
    """Return texts as samples, each at most `length` tokens or what the model takes."""
    tokenizer = tokenizer_of(info)
    most = _most_tokens(info, length)
    made = tokenizer(
        [each.text for each in texts], truncation=True, max_length=most, verbose=False
    )["input_ids"]
    labelled = [each.label for each in texts if each.label is not None]
    labels = None
    if labelled and is_classifier(info):
        if len(labelled) < len(texts):
            raise RequestError(
                f"{where} has {len(texts) - len(labelled)} texts without a label beside "
                f"{len(labelled)} with one; label all or none"
            )
        labels = class_indices(info, labelled, str(where))
    ids = [torch.tensor(each) for each in made]
    read = _reader(ids, tokenizer.pad_token_id, min(_LEAST_TOKENS, info.shape.max_length))
    return Samples(where.name, "text", list(map(_bytes, ids)), read, labels, skipped)


def _windows(
    info: ModelInfo,
    where: Path,
    documents: Sequence[str],
    length: int | None,
    limit: int | None,
    seed: int,
    skipped: int,
) -> Samples:
    """Return all documents in a row, cut into windows of `length` tokens; the rest is left out."""
    tokenizer = tokenizer_of(info)
    size = _most_tokens(info, length or min(WINDOW, info.shape.max_length))
    before, after, between = _special_tokens(info, tokenizer)
    ids: list[int] = []
    for document in documents:
        ids += tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"] + between
    step = size - len(before) - len(after)
    windows = [before + ids[at : at + step] + after for at in range(0, len(ids) - step + 1, step)]
    if step < 2 or not windows:
        raise RequestError(
            f"{where} has {len(ids)} tokens, less than one window of {size}; give more text, or "
            f"another --length"
        )
    chosen, _ = take(windows, torch.tensor, limit, seed)
    read = _reader(chosen, tokenizer.pad_token_id, size)
    return Samples(where.name, "tokens", list(map(_bytes, chosen)), read, None, skipped)


def _special_tokens(info: ModelInfo, tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """Return what stands before and after each window, and after each document.

    A causal model reads on from document to document; another gets the frame it was trained with.
    """
    if info.family.causal and not is_classifier(info):
        end = tokenizer.eos_token_id
        return [], [], [] if end is None else [end]
    inner = tokenizer("a", add_special_tokens=False)["input_ids"]
    outer = tokenizer("a")["input_ids"]
    starts = [at for at in range(len(outer)) if outer[at : at + len(inner)] == inner]
    at = starts[0] if inner and starts else 0
    return outer[:at], outer[at + len(inner) :], []


def _most_tokens(info: ModelInfo, length: int | None) -> int:
    most = info.shape.max_length
    if length is not None and length > most:
        raise RequestError(f"--length {length} is more than the {most} tokens the model takes")
    return length or most


def _reader(ids: Sequence[torch.Tensor], padding: int, least: int) -> Read:
    """Return what makes a batch of token ids, padded to the longest or to `least` tokens."""

    def read(rows: Sequence[int]) -> dict[str, torch.Tensor]:
        chosen = [ids[row] for row in rows]
        shape = (len(chosen), max(least, *map(len, chosen)))
        ids_BN, mask_BN = torch.full(shape, padding), torch.zeros(shape, dtype=torch.int64)
        for row, each in enumerate(chosen):
            ids_BN[row, : len(each)] = each
            mask_BN[row, : len(each)] = 1
        return {"input_ids": ids_BN, "attention_mask": mask_BN}

    return read


def _bytes(ids: torch.Tensor) -> bytes:
    return ids.numpy().tobytes()
