"""How a model's own files say that its output is pooled: the files of sentence-transformers.

`modules.json` lists what follows the Transformer; the folder of its `Pooling` holds a `config.json`
with one flag per mode, or in newer releases with their names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
)

from prism.errors import RequestError
from prism.output_form import MODES, OutputForm

# By mode, how a configuration with flags calls it; in the order in which vectors follow each other.
_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@dataclass(frozen=True, slots=True)
class TextSettings:
    """How texts are read before they are pooled.

    Attributes:
        most_tokens: of one text, special ones included; None where the files set no limit.
        lower_case: whether texts are written in lower case first.
    """

    most_tokens: int | None = None
    lower_case: bool = False


def pooling_of_files(files: str) -> OutputForm | None:
    """Return the form that lies beside a model; None where no file says anything of pooling.

    Args:
        files: a directory or a Hugging Face id; empty where a model has no files.

    Raises:
        RequestError: the files ask for something else than pooling and normalising, or are broken.
    """
    modules = _read(files, "modules.json")
    if modules is None:
        return None
    try:
        # Their packages change from release to release, their names do not.
        kinds = [str(each["type"]).rpartition(".")[2] for each in modules]
        folders = [str(each.get("path", "")) for each in modules]
    except (TypeError, KeyError, AttributeError):
        raise RequestError(f"modules.json of {files} is not understood; {_INSTEAD}") from None
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise RequestError(
            f"modules.json of {files} asks for {', '.join(kinds) or 'nothing'}; only Transformer, "
            f"Pooling and Normalize, in this order, are understood; {_INSTEAD}"
        )
    config = _read(files, f"{folders[1]}/config.json")
    if not isinstance(config, dict):
        raise RequestError(f"{files} lacks {folders[1]}/config.json; {_INSTEAD}")
    return OutputForm("pooled", modes=_modes(files, config), normalise=len(kinds) == 3)


def text_settings_of_files(files: str) -> TextSettings:
    """Return how a model's own files say that its texts are read before they are pooled.

    Args:
        files: a directory or a Hugging Face id; empty where a model has no files.

    Raises:
        RequestError: the file cannot be read, or is not understood.
    """
    found = _read(files, "sentence_bert_config.json") or {}
    if not isinstance(found, dict):
        raise RequestError(f"sentence_bert_config.json of {files} is not understood; correct it")
    most = found.get("max_seq_length")
    if most is not None and (type(most) is not int or most < 1):
        raise RequestError(
            f"sentence_bert_config.json of {files} has max_seq_length {most!r}; give a number of "
            f"at least 1"
        )
    return TextSettings(most, bool(found.get("do_lower_case")))


_INSTEAD = "say how to pool, for example output='pooled:mean', or use output='full'"


def _modes(files: str, config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if named is None:
        unknown = [
            key
            for key, value in config.items()
            if key.startswith("pooling_mode_") and value and key not in _FLAGS.values()
        ]
        named = unknown or [mode for mode, flag in _FLAGS.items() if config.get(flag)] or "mean"
    modes = (named,) if isinstance(named, str) else tuple(map(str, named))
    wrong = [mode for mode in modes if mode not in MODES]
    if wrong:
        raise RequestError(f"{files} is pooled by {wrong[0]}, which is not understood; {_INSTEAD}")
    return modes


def _read(files: str, name: str) -> Any:
    """Return a JSON file beside a model; None where there is none."""
    if not files:
        return None
    try:
        path = _local(files, name)
        return json.loads(path.read_text("utf-8")) if path.is_file() else None
    except EntryNotFoundError:
        return None
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).partition("\n")[0]
        raise RequestError(f"{name} of {files} cannot be read ({reason}); {_INSTEAD}") from None


def _local(files: str, name: str) -> Path:
    """Return where a file lies, brought here if the model is on the hub.

    Raises:
        EntryNotFoundError: the model on the hub has no such file.
        OSError, ValueError, HfHubHTTPError: nobody can say.
    """
    if Path(files).is_dir():
        return Path(files) / name
    try:
        return Path(hf_hub_download(files, name))
    except LocalEntryNotFoundError as error:  # not here, and the hub cannot be reached
        raise OSError(str(error)) from error
