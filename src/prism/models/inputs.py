"""What a model may be given: checked before any node works, prepared on the node that works."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from prism.errors import PlanError, RequestError
from prism.models.families import Family, has_sliding_window, image_size, patch
from prism.models.load import ModelInfo
from prism.plan import Plan

Inputs = Mapping[str, Any]
_RECORDED = ("output_hidden_states", "output_attentions")
# Types other than tensors in an annotation.
_PLAIN = re.compile(r"\b(int|float|bool|str)\b")


def main_input(info: ModelInfo) -> str:
    """Return the name of the model's main input."""
    return str(info.architecture.main_input_name)


def records_blocks(info: ModelInfo) -> bool:
    """Return whether a model's own output is made of what several of its blocks give."""
    config: Any = info.config
    recorded = config.output_hidden_states or config.output_attentions
    # So Whisper's audio classifier may, and every backbone does.
    weighted = getattr(config, "use_weighted_layer_sum", False)
    return bool(recorded or weighted) or hasattr(info.architecture, "out_features")


def check_inputs(info: ModelInfo, inputs: Inputs) -> tuple[int, int]:
    """Check a request against a model; return its batch size and its length in tokens.

    Raises:
        RequestError: names the input, what is wrong with it and what the model takes.
    """
    name = main_input(info)
    if name not in inputs:
        given = ", ".join(inputs) or "nothing"
        raise RequestError(f"{info.architecture.__name__} needs {name}; it was given {given}")
    for key, value in inputs.items():
        _check_kind(info.architecture, key, value)
    main = inputs[name]
    if main is None:
        raise RequestError(f"{name} must be a tensor, not None")
    checks = {
        "pixel_values": _check_pixels,
        "input_ids": _check_ids,
        "input_features": _check_features,
    }
    if name not in checks:
        raise RequestError(f"{info.architecture.__name__} reads {name}, which is not handled")
    batch, length = checks[name](info, main, inputs)
    for key, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] != batch:
            raise RequestError(f"{key} has {value.shape[0]} rows, {name} has {batch}")
    return batch, length


@cache
def _parameters(architecture: Any) -> Mapping[str, bool]:
    """Return the inputs a class of transformers takes; for each, whether only a tensor will do.

    Read from the annotations, where `int | torch.Tensor` takes both. Cached: a signature takes
    longer to read than all other checks together.
    """
    _, *parameters = inspect.signature(architecture.forward).parameters.values()
    tensors = dict.fromkeys(_RECORDED, False)
    for each in parameters:
        if each.kind is not each.VAR_KEYWORD:
            annotation = str(each.annotation)
            tensors[each.name] = "Tensor" in annotation and not _PLAIN.search(annotation)
    # Some classes leave these without annotation.
    always = {architecture.main_input_name, "attention_mask"} & tensors.keys()
    return {**tensors, **dict.fromkeys(always, True)}


def _check_kind(architecture: Any, name: str, value: Any) -> None:
    """Check that an input is known, and a tensor where it has to be one."""
    parameters = _parameters(architecture)
    if name not in parameters:
        raise RequestError(f"{architecture.__name__} takes no input named {name!r}")
    if isinstance(value, (torch.Tensor, type(None))):
        return
    if not isinstance(value, (int, float, bool, str)):
        raise RequestError(f"{name} must be a tensor or a plain value, not {type(value)}")
    if parameters[name]:
        raise RequestError(f"{name} must be a tensor, not {type(value).__name__} {value!r}")


def _check_pixels(info: ModelInfo, pixels: torch.Tensor, inputs: Inputs) -> tuple[int, int]:
    channels = info.config.num_channels
    height, width = image_size(info.config)
    wanted = f"(batch, {channels}, {height}, {width})"
    shape = tuple(pixels.shape)
    if pixels.dim() != 4 or shape[1] != channels or 0 in shape:
        raise RequestError(f"pixel_values must be {wanted}, not {shape}")
    resized = bool(inputs.get("interpolate_pos_encoding"))
    if shape[2:] != (height, width) and not resized:
        raise RequestError(f"pixel_values must be {wanted}, not {shape}; resize the images")
    if pixels.dtype == torch.uint8:
        if info.normalisation is None:
            raise RequestError(
                "uint8 pixel_values need an image processor beside the model to normalise them; "
                "add preprocessor_config.json or give float pixels"
            )
    elif not pixels.is_floating_point():
        raise RequestError(f"pixel_values must be uint8 or floating point, not {pixels.dtype}")
    edge = patch(info.config)
    tokens = info.family.image_tokens + (shape[2] // edge) * (shape[3] // edge)
    _check_token_mask(inputs, shape[0], tokens, "for these images")
    return shape[0], tokens


def _check_ids(info: ModelInfo, ids: torch.Tensor, inputs: Inputs) -> tuple[int, int]:
    if ids.dim() != 2 or 0 in ids.shape:
        raise RequestError(f"input_ids must be (batch, length), not {tuple(ids.shape)}")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise RequestError(f"input_ids must be integers, not {ids.dtype}")
    batch, length = int(ids.shape[0]), int(ids.shape[1])
    if length > info.shape.max_length:
        raise RequestError(
            f"input_ids has {length} tokens, the model takes {info.shape.max_length}; truncate"
        )
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= info.config.vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise RequestError(
            f"input_ids contains {wrong}; the vocabulary is 0..{info.config.vocab_size - 1}"
        )
    _check_token_mask(inputs, batch, length, "like input_ids")
    return batch, length


def _check_token_mask(inputs: Inputs, batch: int, length: int, why: str) -> None:
    mask = inputs.get("attention_mask")
    if mask is None:
        return
    if tuple(mask.shape) != (batch, length):
        raise RequestError(
            f"attention_mask must be {(batch, length)} {why}, not {tuple(mask.shape)}"
        )
    wrong = mask[(mask != 0) & (mask != 1)]
    if wrong.numel():
        raise RequestError(
            f"attention_mask must hold 0 (padding) and 1 (token) only, not {wrong[0].item()}"
        )


def _check_features(info: ModelInfo, features: torch.Tensor, inputs: Inputs) -> tuple[int, int]:
    bins, length = info.config.num_mel_bins, info.config.max_source_positions
    if features.dim() != 3 or tuple(features.shape[1:]) != (bins, 2 * length):
        raise RequestError(
            f"input_features must be (batch, {bins}, {2 * length}), not {tuple(features.shape)}"
        )
    if not features.is_floating_point():
        raise RequestError(f"input_features must be floating point, not {features.dtype}")
    return int(features.shape[0]), int(length)


def check_plan_of_family(family: Family, config: Any, plan: Plan) -> None:
    """Check that a sequence plan is defined for a model.

    Raises:
        PlanError: the plan does not fit the model.
    """
    if family.rotary and plan.lag:
        raise PlanError(
            f"{plan}: {family.name} keeps positions in its keys, so lag=1 is not supported for "
            f"it; leave lag1 out"
        )
    if plan.means is not None and has_sliding_window(config):
        raise PlanError(
            f"{plan}: {family.name} has sliding-window layers, where a mean that straddles the "
            f"window has no defined weight; use full instead of means"
        )


def check_partition(info: ModelInfo, plan: Plan, inputs: Inputs, length: int) -> None:
    """Check that the positions of a request of `length` tokens can be split under a plan.

    Raises:
        PlanError: the plan does not fit the model.
        RequestError: the plan does not fit the request.
    """
    check_plan_of_family(info.family, info.config, plan)
    if length < plan.size:
        raise RequestError(
            f"{plan} needs at least {plan.size} tokens, the request has {length}; use fewer nodes"
        )
    for key in _RECORDED:
        if inputs.get(key):
            raise RequestError(f"{key} is only available with the plans local and batch")
    if inputs.get("use_cache") or inputs.get("past_key_values") is not None:
        raise RequestError(f"{plan} runs without a cache; leave use_cache out")


def prepare(info: ModelInfo, inputs: Inputs, model: torch.nn.Module) -> dict[str, Any]:
    """Bring checked inputs to the model's device and dtypes; normalise uint8 pixels."""
    parameter = next(model.parameters())
    prepared: dict[str, Any] = {}
    for key, value in inputs.items():
        if not isinstance(value, torch.Tensor):
            prepared[key] = value
            continue
        value = value.to(parameter.device)
        if key == "pixel_values" and value.dtype == torch.uint8:
            assert info.normalisation is not None
            value = info.normalisation.apply(value)
        if value.is_floating_point():
            value = value.to(parameter.dtype)
        elif value.dtype != torch.bool:
            value = value.long()
        prepared[key] = value
    # Prefill only: a cache would be built, returned and thrown away.
    architecture: Any = info.architecture
    if "use_cache" in _parameters(architecture):
        prepared.setdefault("use_cache", False)
    return prepared


def token_mask(main_input_name: str, attention_mask: Any) -> torch.Tensor | None:
    """Return which tokens are real, `(B, N)` of bool, from what a model calls its attention mask.

    None when all are. Whisper's mask lies over mel frames, not over tokens, and its encoder ignores
    it: so does every plan.
    """
    if attention_mask is None or main_input_name == "input_features":
        return None
    real_BN: torch.Tensor = attention_mask.bool()
    return None if bool(real_BN.all()) else real_BN
