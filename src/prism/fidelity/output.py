"""Where a fine-tuned model goes: an ordinary Hugging Face directory that appears when it is whole.

Everything is made inside the checkpoint's folder and moved at the end, so an older model in the
same place stays as it is until the new one is complete.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers import PreTrainedModel

from prism.errors import ConfigError
from prism.fidelity.accuracy import FILE_NAME
from prism.fidelity.checkpoint import FOLDER, is_publishing
from prism.models.load import ModelInfo

BEFORE_NAME = "accuracy_before.json"
# What turns files into inputs, and how sentence-transformers pools; never weights.
_BESIDE = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "chat_template*",
    "*processor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "[0-9]_*/config.json",
)


def check_out(out: Path, source: str, force: bool) -> None:
    """Refuse a place where no model can be written, before minutes are spent on one.

    Args:
        out: the directory to make; one that holds an unfinished training only will do, and one
            to which a training was moving its files.
        source: where the original's files lie; they must stay.
        force: whether files that are there may be replaced.

    Raises:
        ConfigError: says what is wrong with the place.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a directory")
    if source and out.resolve() == Path(source).resolve():
        raise ConfigError(f"--out {out} is the model itself; choose another place")
    try:
        there = sorted(path.name for path in out.iterdir()) if out.exists() else []
    except OSError as error:
        raise ConfigError(
            f"--out {out} cannot be read: {error.strerror}; choose another place"
        ) from None
    if set(there) - {FOLDER} and not force and not is_publishing(out):
        raise ConfigError(
            f"--out {out} holds {there[-1]} already; choose another place, or give --force to "
            f"replace what is there"
        )
    parent = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        state = "cannot be written to" if parent.is_dir() else "is no directory"
        raise ConfigError(f"--out {out}: {parent} {state}; choose another place")


def write_model(model: PreTrainedModel, info: ModelInfo, folder: Path) -> None:
    """Write a model and what lies beside the original: tokenizer, processor, no weights.

    Raises:
        ConfigError: the disk is full or refuses.
    """
    try:
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        if not info.files:
            return
        source = Path(info.files)
        if not source.is_dir():
            source = Path(snapshot_download(info.files, allow_patterns=list(_BESIDE)))
        for path in {found for pattern in _BESIDE for found in source.glob(pattern)}:
            target = folder / path.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
    except OSError as error:
        raise ConfigError(
            f"cannot write the model in {folder}: {error}; free some space and give the same "
            f"command again, the training is kept"
        ) from error


def publish(folder: Path, out: Path) -> None:
    """Move what was made to where it belongs; the accuracy table, which names it, comes last.

    Raises:
        ConfigError: something is in the way.
    """
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file()),
        key=lambda path: (path.name == FILE_NAME, path),
    )
    for path in files:
        target = out / path.relative_to(folder)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        except OSError as error:
            raise ConfigError(
                f"cannot move {path.name} to {target}: {error.strerror}; make room and give the "
                f"same command again, the training is kept"
            ) from None
