"""Labels that people give, as classes of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch

from prism.errors import RequestError
from prism.models.load import ModelInfo

_CLASSIFIER = re.compile(r"For(Image|Sequence|Audio)Classification")
_UNNAMED = re.compile(r"LABEL_\d+")


def is_classifier(info: ModelInfo) -> bool:
    """Return whether a model gives each sample classes, so that a label can be right or wrong."""
    return bool(_CLASSIFIER.search(info.architecture.__name__))


def largest_batch(info: ModelInfo, batch: int) -> int:
    """Return how many samples a forward call may have, `batch` at most.

    A causal classifier answers at the last real token of a text, which it finds by its padding
    token; without one it takes a single text.
    """
    alone = info.family.causal and is_classifier(info)
    return 1 if alone and getattr(info.config, "pad_token_id", None) is None else batch


def class_indices(
    info: ModelInfo, names: Sequence[object], where: str, words: Iterable[object] | None = None
) -> torch.Tensor:
    """Return labels as classes of the model, `(count,)` of int64.

    A label is the name of a class, or its number. Where the classes of the model have no names
    and the labels are as many different words as it has classes, the words in order are the
    classes, as torchvision's `ImageFolder` counts them.

    Args:
        info: a classifier.
        names: one label per sample, a text or a whole number.
        where: the labels come from, for errors.
        words: the labels of the whole data set, where `names` are of some of it only.

    Raises:
        RequestError: the model gives no single class, or a label is none of its classes.
    """
    config = info.config
    count = int(config.num_labels)
    if count < 2 or getattr(config, "problem_type", None) == "multi_label_classification":
        raise RequestError(
            f"{info.source or info.architecture.__name__} does not choose one class, so the labels "
            f"of {where} cannot be compared; give --no-labels"
        )
    known = {str(name).strip().casefold(): int(index) for index, name in config.id2label.items()}
    if all(_UNNAMED.fullmatch(str(name)) for name in config.id2label.values()):
        ordered = sorted({str(word) for word in (names if words is None else words)})
        if len(ordered) == count and not all(word.strip().isdecimal() for word in ordered):
            known = {word.strip().casefold(): index for index, word in enumerate(ordered)}
    return torch.tensor([_index(name, known, count, where) for name in names], dtype=torch.int64)


def _index(name: object, known: dict[str, int], count: int, where: str) -> int:
    text = str(name).strip()
    for spelling in (text.casefold(), text.casefold().replace("_", " ")):
        if spelling in known:
            return known[spelling]
    if text.isdecimal() and len(text) < 10 and int(text) < count:
        return int(text)
    some = ", ".join(list(known)[:4])
    raise RequestError(
        f"{where} has the label {text!r}, which is no class of the model ({some}"
        f"{', ...' if count > 4 else ''}; or 0..{count - 1}); correct it, or give --no-labels"
    )
