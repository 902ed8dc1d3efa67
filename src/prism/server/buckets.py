"""Which requests can be one batch, and how it is made of them.

Rows are concatenated. Texts of about the same length are padded at their end, under a mask, to the
longest of them; anything else must have the same shape. What is not known to be one value per row
keeps a request alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from prism.models.inputs import main_input
from prism.models.load import ModelInfo

Inputs = Mapping[str, torch.Tensor]
_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"
_TEXT = {_IDS, _MASK, _TYPES}
# Of these every row belongs to one sample and depends on no other.
_JOINABLE = {*_TEXT, "pixel_values", "input_features"}
_LEAST_BUCKET = 16


class Signature(NamedTuple):
    """What inputs must have in common to be one batch.

    Attributes:
        tensors: name, dtype and shape of a row, in the order of names; of a text without lengths.
        bucket: the longest text of the same batch, in tokens; 0 for other inputs.
    """

    tensors: tuple[tuple[str, torch.dtype, tuple[int, ...]], ...]
    bucket: int


class Joined(NamedTuple):
    """The inputs of one batch.

    Attributes:
        inputs: of all requests, one after the other.
        length: of the padded texts in tokens; 0 where nothing was padded.
    """

    inputs: dict[str, torch.Tensor]
    length: int


def bucket_of(length: int) -> int:
    """Return the longest text that is joined with one of `length` tokens.

    Bounds are 16, 24, 32, 48, 64, 96 and so on, so that past 16 tokens at most a third is padding.
    """
    bound = _LEAST_BUCKET
    while bound < length:
        bound *= 2
    return bound * 3 // 4 if length <= bound * 3 // 4 and bound > _LEAST_BUCKET else bound


def signature_of(info: ModelInfo, inputs: Inputs) -> Signature | None:
    """Return what other inputs must have in common with some; None = they stay alone.

    Args:
        info: the model.
        inputs: checked against it.
    """
    if not set(inputs) <= _JOINABLE:
        return None
    if main_input(info) != _IDS:
        rows = ((name, each.dtype, tuple(each.shape[1:])) for name, each in sorted(inputs.items()))
        return Signature(tuple(rows), 0)
    whole = inputs[_IDS].shape
    if not set(inputs) <= _TEXT or any(each.shape != whole for each in inputs.values()):
        return None
    if _pad_id(info) is None and _finds_end_by_padding(info):
        return None
    # A mask can be made where there is none.
    kinds = ((name, inputs[name].dtype, ()) for name in sorted(inputs) if name != _MASK)
    return Signature(tuple(kinds), bucket_of(whole[1]))


def join_inputs(info: ModelInfo, requests: Sequence[Inputs]) -> Joined:
    """Return the inputs of one batch.

    Args:
        info: the model.
        requests: inputs of equal signatures; those of one request stay as they are.
    """
    if len(requests) == 1:
        return Joined(dict(requests[0]), 0)
    if main_input(info) == _IDS:
        return _joined_texts(info, requests)
    return Joined({name: torch.cat([each[name] for each in requests]) for name in requests[0]}, 0)


def _joined_texts(info: ModelInfo, requests: Sequence[Inputs]) -> Joined:
    lengths = [each[_IDS].shape[1] for each in requests]
    longest, same = max(lengths), len(set(lengths)) == 1
    names = [name for name in requests[0] if name != _MASK]
    fill = {_IDS: _pad_id(info) or 0}
    joined = {
        name: torch.cat([_padded(each[name], longest, fill.get(name, 0)) for each in requests])
        for name in names
    }
    if not same or any(_MASK in each for each in requests):
        masks = [_padded(_mask_of(each), longest, 0) for each in requests]
        joined[_MASK] = torch.cat(masks)
    return Joined(joined, 0 if same else longest)


def _mask_of(inputs: Inputs) -> torch.Tensor:
    """Return which tokens are real, 1 and 0; `(B, N)` of int64."""
    mask = inputs.get(_MASK)
    return torch.ones_like(inputs[_IDS], dtype=torch.long) if mask is None else mask.long()


def _padded(values_BN: torch.Tensor, length: int, fill: int) -> torch.Tensor:
    missing = length - values_BN.shape[1]
    return functional.pad(values_BN, (0, missing), value=fill) if missing else values_BN


def _pad_id(info: ModelInfo) -> int | None:
    """Return the id that a model pads with; None where it has none of its vocabulary."""
    pad_id = getattr(info.config, "pad_token_id", None)
    known = isinstance(pad_id, int) and 0 <= pad_id < info.config.vocab_size
    return pad_id if known else None


def _finds_end_by_padding(info: ModelInfo) -> bool:
    """Return whether a model looks for its last token by the padding behind it."""
    return info.family.causal and info.architecture.__name__.endswith("ForSequenceClassification")
