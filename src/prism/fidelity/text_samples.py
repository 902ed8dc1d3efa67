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
from prism.fidelity.sample_set import Read, Samples, Selection, Texts, take
from prism.models.load import ModelInfo
from prism.models.processing import read_text, tokenizer_of

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
TEXT_SUFFIXES = (".txt", ".text", ".md")
WINDOW = 512  # tokens of a window where nobody says
_TEXT_COLUMNS = ("text", "sentence", "content")
_LABEL_COLUMNS = ("label", "labels", "class")
_PARAGRAPHS = re.compile(r"\n\s*\n")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    label: str | None = None


def table_samples(info: ModelInfo, path: Path, selection: Selection) -> Samples:
    """Return the rows of a CSV, TSV or JSONL file as samples; blank and broken rows are skipped.

    Raises:
        RequestError: the file cannot be read, has no text column, no row that can be used, or a
            label is no class of the model.
    """
    rows = list(_rows(path))
    if info.family.causal and not is_classifier(info):
        texts, skipped = take(rows, _text_of, Selection())
        _require(texts, path, len(rows))
        return _windows(info, path, [each.text for each in texts], selection, skipped)
    texts, skipped = take(rows, _text_of, selection)
    _require(texts, path, len(rows))
    labels = None
    if selection.labels and is_classifier(info):
        # Of all rows: which are drawn must not say what a word stands for.
        words = [each.label for each in map(_text_of, rows) if each and each.label is not None]
        labels = _labels(info, path, texts, words)
    return _padded(info, path, texts, selection.length, labels, skipped)


def file_samples(
    info: ModelInfo,
    root: Path,
    files: Sequence[Path],
    selection: Selection,
) -> Samples:
    """Return plain text files as samples.

    For a causal model, and wherever a length is asked for, all text is cut into windows of that
    many tokens; otherwise each paragraph is a sample (each line, in a file without blank lines).

    Raises:
        RequestError: no file can be read, or there is less text than one window.
    """
    documents, skipped = take(files, _document, Selection())
    _require(documents, root, len(files))
    if selection.length is not None or (info.family.causal and not is_classifier(info)):
        return _windows(info, root, documents, selection, skipped)
    pieces = [piece for document in documents for piece in _paragraphs(document)]
    texts, _ = take(pieces, _Text, selection)
    return _padded(info, root, texts, None, None, skipped)


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
        parts = parts[0].split("\n")
    return [part.strip() for part in parts if part.strip()]


def _rows(path: Path) -> Iterator[Mapping[str, Any] | None]:
    """Give the rows of a table; None for one that is broken."""
    text = read_text(path).removeprefix("\ufeff")
    if path.suffix.lower() == ".jsonl":
        for line in filter(str.strip, text.split("\n")):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else None
        return
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        if not any(column in (table.fieldnames or ()) for column in _TEXT_COLUMNS):
            raise RequestError(
                f"{path} has no column named {', '.join(_TEXT_COLUMNS[:-1])} or "
                f"{_TEXT_COLUMNS[-1]} in its first line; name the column with the texts so"
            )
        yield from table
    except csv.Error as error:
        raise RequestError(f"{path} is no table that can be read: {error}; correct it") from error


def _text_of(row: Mapping[str, Any] | None) -> _Text | None:
    if row is None:
        return None
    text = next((row[name] for name in _TEXT_COLUMNS if row.get(name)), None)
    # Half of a surrogate pair, which JSON can spell, is no text.
    if not isinstance(text, str) or not text.strip() or _SURROGATE.search(text):
        return None
    label = next((row[name] for name in _LABEL_COLUMNS if row.get(name) not in (None, "")), None)
    if isinstance(label, float) and label.is_integer():  # a class number, written as 1.0
        label = int(label)
    return _Text(text, None if label is None else str(label))


def _labels(
    info: ModelInfo, where: Path, texts: Sequence[_Text], words: Sequence[str]
) -> torch.Tensor | None:
    labelled = [each.label for each in texts if each.label is not None]
    if not labelled:
        return None
    if len(labelled) < len(texts):
        raise RequestError(
            f"{where} has {len(texts) - len(labelled)} texts without a label beside "
            f"{len(labelled)} with one; label all, or give --no-labels"
        )
    return class_indices(info, labelled, str(where), words)


def _padded(
    info: ModelInfo,
    where: Path,
    texts: Sequence[_Text],
    length: int | None,
    labels: torch.Tensor | None,
    skipped: int,
) -> Samples:
    """Return texts as samples, each at most `length` tokens or what the model takes."""
    tokenizer = tokenizer_of(info)
    before, after, _ = _special_tokens(info, tokenizer)
    most = _most_tokens(info, length, len(before) + len(after))
    made = tokenizer(
        [each.text for each in texts], truncation=True, max_length=most, verbose=False
    )["input_ids"]
    some = [row for row, each in enumerate(made) if each]  # invisible characters make no token
    _require(some, where, len(texts))
    ids = [torch.tensor(made[row]) for row in some]
    labels, skipped = labels if labels is None else labels[some], skipped + len(made) - len(some)
    lengths = Texts(list(map(len, ids)), tokenizer.pad_token_id)
    read = _reader(ids, tokenizer.pad_token_id)
    return Samples(where.name, "text", list(map(_bytes, ids)), read, labels, skipped, lengths)


def _windows(
    info: ModelInfo,
    where: Path,
    documents: Sequence[str],
    selection: Selection,
    skipped: int,
) -> Samples:
    """Return all documents in a row, cut into windows of one length; the rest is left out."""
    tokenizer = tokenizer_of(info)
    before, after, between = _special_tokens(info, tokenizer)
    asked = selection.length or min(WINDOW, info.shape.max_length)
    size = _most_tokens(info, asked, len(before) + len(after))
    ids: list[int] = []
    for document in documents:
        ids += tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"] + between
    step = size - len(before) - len(after)
    windows = [before + ids[at : at + step] + after for at in range(0, len(ids) - step + 1, step)]
    if not windows:
        raise RequestError(
            f"{where} has {len(ids)} tokens, less than one window of {size}; give more text, or "
            f"another --length"
        )
    chosen, _ = take(windows, torch.tensor, selection)
    read = _reader(chosen, tokenizer.pad_token_id)
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


def _most_tokens(info: ModelInfo, length: int | None, special: int) -> int:
    """Return the tokens of a text at most, of which `special` stand around it."""
    most = info.shape.max_length
    if length is not None and length <= special:
        raise RequestError(
            f"--length {length} leaves no room for text beside {special} special tokens; give more"
        )
    if length is not None and length > most:
        raise RequestError(f"--length {length} is more than the {most} tokens the model takes")
    return length or most


def _reader(ids: Sequence[torch.Tensor], padding: int) -> Read:
    """Return what makes a batch of token ids, padded to the longest."""

    def read(rows: Sequence[int]) -> dict[str, torch.Tensor]:
        chosen = [ids[row] for row in rows]
        shape = (len(chosen), max(map(len, chosen)))
        ids_BN, mask_BN = torch.full(shape, padding), torch.zeros(shape, dtype=torch.int64)
        for row, each in enumerate(chosen):
            ids_BN[row, : len(each)] = each
            mask_BN[row, : len(each)] = 1
        return {"input_ids": ids_BN, "attention_mask": mask_BN}

    return read


def _bytes(ids: torch.Tensor) -> bytes:
    return ids.numpy().tobytes()
