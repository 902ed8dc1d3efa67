"""From a DATA argument to samples that a model can be measured on.

DATA is a folder of images, whose sub-folders are labels; a CSV, TSV or JSONL file of texts; a text
file or a folder of them; an `.npz` of arrays named like the model's inputs; or `digits`, what the
model in the package was never trained on. `./digits` is always a folder.
"""

from __future__ import annotations

from pathlib import Path

from prism.errors import RequestError
from prism.fidelity import array_samples, image_samples, text_samples
from prism.fidelity.sample_set import Samples, Selection
from prism.models.inputs import main_input
from prism.models.load import LoadedModel, ModelInfo
from prism.models.source import DIGITS

__all__ = ["Samples", "open_samples"]

_IMAGES = "pixel_values"
_TEXT = "input_ids"
_READS = {_IMAGES: "images", _TEXT: "text"}


def open_samples(
    source: str,
    loaded: LoadedModel,
    *,
    length: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    labels: bool = True,
) -> Samples:
    """Find the samples of a data set and check that the model can take them.

    Args:
        source: the DATA argument.
        loaded: the model; its tokenizer or image processor prepares the samples.
        length: tokens of a text; longer ones are cut. Plain text is cut into windows of it.
        limit: so many samples, drawn at random; None = all.
        seed: of the draw.
        labels: whether labels that the data has are looked at.

    Raises:
        RequestError: there is no such data, nothing in it can be used, its labels are none of the
            model's, or the model cannot take its kind; says which.
    """
    info = loaded.info
    selection = Selection(length, limit, seed, labels)
    if length is not None and main_input(info) != _TEXT:
        raise RequestError(f"--length {length} is for texts; {_name(info)} reads {_kind(info)}")
    if source == DIGITS:
        _require(info, _IMAGES, source)
        return image_samples.digits_samples(info, selection)
    path = Path(source).expanduser()
    if not path.exists():
        raise RequestError(f"data {source} does not exist; give a folder, a file, or {DIGITS}")
    of = _of_folder if path.is_dir() else _of_file
    return of(info, path, selection)


def _of_file(info: ModelInfo, path: Path, selection: Selection) -> Samples:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return array_samples.array_samples(info, path, selection)
    if suffix in text_samples.TABLE_SUFFIXES:
        _require(info, _TEXT, str(path))
        return text_samples.table_samples(info, path, selection)
    if suffix in text_samples.TEXT_SUFFIXES:
        _require(info, _TEXT, str(path))
        return text_samples.file_samples(info, path, [path], selection)
    if suffix in image_samples.SUFFIXES:
        _require(info, _IMAGES, str(path))
        return image_samples.folder_samples(info, path, [path], selection)
    raise RequestError(
        f"{path} is no kind of data that is known: give a folder, .csv, .tsv, .jsonl, .txt or .npz"
    )


def _of_folder(info: ModelInfo, folder: Path, selection: Selection) -> Samples:
    files = {
        _IMAGES: _files(folder, image_samples.SUFFIXES),
        _TEXT: _files(folder, text_samples.TEXT_SUFFIXES),
    }
    present = [kind for kind, found in files.items() if found]
    if not present:
        raise RequestError(f"{folder} holds neither images nor text files; give another folder")
    if main_input(info) not in present:
        _require(info, present[0], str(folder))
    if main_input(info) == _IMAGES:
        return image_samples.folder_samples(info, folder, files[_IMAGES], selection)
    return text_samples.file_samples(info, folder, files[_TEXT], selection)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of one kind anywhere in a folder, in order; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _require(info: ModelInfo, kind: str, source: str) -> None:
    """Refuse data of a kind that the model does not read."""
    if main_input(info) != kind:
        raise RequestError(
            f"{_name(info)} reads {_kind(info)}, and {source} holds {_READS[kind]}; give it "
            f"{_kind(info)}, or an .npz with {main_input(info)}"
        )


def _kind(info: ModelInfo) -> str:
    return _READS.get(main_input(info), main_input(info))


def _name(info: ModelInfo) -> str:
    return info.source or info.architecture.__name__
