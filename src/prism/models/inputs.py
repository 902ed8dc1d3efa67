"""What a model may be given: checked before any node works, prepared on the node that works."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from prism.errors import PlanError, RequestError
from prism.models.families import Family, has_sliding_window, image_size, patch
from prism.models.load import ModelInfo
from prism.plan import Plan

Inputs = Mapping[str, Any]
_RECORDED = ("output_hidden_states", "output_attentions")


def main_input(info: ModelInfo) -> str:
    """Return the name of the model's main input."""
    return str(info.architecture.main_input_name)


def check_inputs(info: ModelInfo, inputs: Inputs) -> tuple[int, int]:
    """Check a request against a model; return its batch size and its length in tokens.

    Raises:
        RequestError: names the input, what is wrong with it and what the model takes.
    """
    name = main_input(info)
    if name not in inputs:
        given = ", ".join(inputs) or "nothing"
        raise RequestError(f"{info.architecture.__name__} needs {name}; it was given {given}")
    known = set(inspect.signature(info.architecture.forward).parameters) | set(_RECORDED)
    for key, value in inputs.items():
        if key not in known:
            raise RequestError(f"{info.architecture.__name__} takes no input named {key!r}")
        if not isinstance(value, (torch.Tensor, int, float, bool, str, type(None))):
            raise RequestError(f"{key} must be a tensor or a plain value, not {type(value)}")
    main = inputs[name]
    if not isinstance(main, torch.Tensor):
        raise RequestError(f"{name} must be a tensor, not {type(main).__name__}")
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
    mask = inputs.get("attention_mask")
    if mask is not None:
        if tuple(mask.shape) != (batch, length):
            raise RequestError(
                f"attention_mask must be {(batch, length)} like input_ids, not {tuple(mask.shape)}"
            )
        if bool(((mask != 0) & (mask != 1)).any()):
            raise RequestError("attention_mask must hold 0 (padding) and 1 (token) only")
    return batch, length


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
            f"window has no defined weight; use full instead of L{plan.means}"
        )


def check_plan(info: ModelInfo, plan: Plan, inputs: Inputs, length: int) -> None:
    """Check that a plan can serve a request of `length` tokens.

    Raises:
        PlanError: the plan does not fit the model.
        RequestError: the plan does not fit the request.
    """
    if plan.strategy != "sequence":
        return
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
    if "use_cache" in inspect.signature(info.architecture.forward).parameters:
        prepared.setdefault("use_cache", False)
    return prepared
