"""Folders of image files, and the held-out digits of the package, as samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from prism.errors import RequestError
from prism.fidelity.labels import class_indices, is_classifier
from prism.fidelity.sample_set import Samples, Selection, take
from prism.models.held_out import grey, packed_images
from prism.models.load import ModelInfo
from prism.models.processing import image_inputs, read_image
from prism.models.source import DIGITS

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True, slots=True)
class _ImageFile:
    path: Path
    content: bytes
    folder: str | None  # the class folder; None for an image that lies in none


def folder_samples(
    info: ModelInfo, root: Path, files: Sequence[Path], selection: Selection
) -> Samples:
    """Return image files as samples; sub-folders of `root` are their labels.

    Args:
        info: a model that reads images.
        root: the folder, or the only file.
        files: the image files in it.
        selection: which of them; whether folders are looked at as labels.

    Raises:
        RequestError: no file can be read, some images lie in class folders and some do not, or a
            folder is no class of the model.
    """
    chosen, skipped = take(files, lambda path: _readable(root, path), selection)
    if not chosen:
        raise RequestError(f"none of the {len(files)} images of {root} can be read; check them")
    folders = [each.folder for each in chosen if each.folder is not None]
    labels = None
    if folders and selection.labels and is_classifier(info):
        if len(folders) < len(chosen):
            loose = next(each.path for each in chosen if each.folder is None)
            raise RequestError(
                f"{root} has images in class folders and {loose.name} in none; move it into one, "
                f"or all out of them"
            )
        # Of all images: which are drawn must not say what a folder stands for.
        words = [folder for path in files if (folder := _class_folder(root, path)) is not None]
        labels = class_indices(info, folders, str(root), words)
    paths = [each.path for each in chosen]
    return Samples(
        root.name,
        "images",
        [each.content for each in chosen],
        lambda rows: image_inputs(info, [read_image(paths[row]) for row in rows]),
        labels,
        skipped,
    )


def digits_samples(info: ModelInfo, selection: Selection) -> Samples:
    """Return the images that the model of the package was never trained on, with their digits."""
    ink, digits = packed_images()
    rows, _ = take(range(len(digits)), lambda row: row, selection)
    pixels = grey(ink[rows])
    labels = None
    if selection.labels and is_classifier(info):
        labels = class_indices(info, [int(digit) for digit in digits[rows]], DIGITS)
    return Samples(
        "digits, 8x8 pixels, held out",
        "images",
        [each.tobytes() for each in pixels],
        lambda some: image_inputs(info, [Image.fromarray(pixels[row]) for row in some]),
        labels,
    )


def _readable(root: Path, path: Path) -> _ImageFile | None:
    """Return an image file that can be decoded whole, or None."""
    try:
        read_image(path)
        content = path.read_bytes()
    except (RequestError, OSError):
        return None
    # Pixels are read again batch by batch: all of a data set need not fit into memory.
    return _ImageFile(path, hashlib.sha256(content).digest(), _class_folder(root, path))


def _class_folder(root: Path, path: Path) -> str | None:
    parts = path.relative_to(root).parts if path != root else ()
    return parts[0] if len(parts) > 1 else None
