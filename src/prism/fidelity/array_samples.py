"""Arrays in an `.npz` file, named like the inputs of a model, as samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prism.errors import RequestError
from prism.fidelity.labels import class_indices, is_classifier
from prism.fidelity.sample_set import Samples, Selection, take
from prism.models.inputs import check_inputs
from prism.models.load import ModelInfo

_LABELS = "labels"
_WIDEST = 8  # bytes of a number


def array_samples(info: ModelInfo, path: Path, selection: Selection) -> Samples:
    """Return the rows of the arrays in a file as samples.

    Args:
        info: the model.
        path: an `.npz` of equally long arrays; `labels` are whole numbers, where they are known.
        selection: which rows; whether labels are looked at.

    Raises:
        RequestError: the file cannot be read, or its arrays are not what the model takes.
    """
    arrays = _arrays(path)
    labels = arrays.pop(_LABELS, None)
    inputs = {name: _tensor(path, name, array) for name, array in arrays.items()}
    try:
        count, _ = check_inputs(info, inputs)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error
    rows, _ = take(range(count), lambda row: row, selection)
    chosen = {name: tensor[rows] for name, tensor in inputs.items()}
    classes = None
    if labels is not None and selection.labels and is_classifier(info):
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            raise RequestError(
                f"{path}: labels must be {count} whole numbers, one per row, not "
                f"{labels.dtype} {labels.shape}"
            )
        classes = class_indices(info, labels[rows].tolist(), str(path))
    contents = [
        b"".join(name.encode() + tensor[row].numpy().tobytes() for name, tensor in chosen.items())
        for row in range(len(rows))
    ]
    return Samples(
        path.name,
        "arrays",
        contents,
        lambda some: {name: tensor[list(some)] for name, tensor in chosen.items()},
        classes,
    )


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path) as packed:
            if not isinstance(packed, Mapping):
                raise RequestError(f"{path} holds one array without a name; save it with np.savez")
            return dict(packed)
    except RequestError:
        raise
    except Exception as error:  # a torn file fails in zip, zlib, or numpy's parser of its header
        raise RequestError(f"{path} is no .npz file that can be read: {error}") from error


def _tensor(path: Path, name: str, array: Any) -> torch.Tensor:
    dtype = array.dtype
    if array.ndim == 0 or dtype.kind not in "iufb" or dtype.itemsize > _WIDEST:
        raise RequestError(f"{path}: {name} must be rows of numbers, not {dtype}")
    # torch has no arithmetic on unsigned integers wider than a byte, and this machine's byte order.
    wide = dtype.kind == "u" and dtype.itemsize > 1
    return torch.from_numpy(array.astype(np.int64 if wide else dtype.newbyteorder("="), copy=False))
