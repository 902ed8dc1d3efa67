"""A model's copies at other precisions, made of its float32 weights.

| precision | becomes | stays float32 |
|---|---|---|
| `half` | every parameter: bfloat16, on GPUs float16 | buffers such as rotary frequencies |
| `int8` | the matrix products of all blocks (`models.int8`) | all else: embeddings, norms, head |

A copy shares with its original every parameter that stays as it is, and the configuration.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from prism.errors import UnsupportedPrecision
from prism.models.inputs import main_input
from prism.models.int8 import Int8Linear, engine
from prism.models.load import LoadedModel
from prism.models.packed import PackedLinear, can_pack
from prism.models.processor import free_memory_bytes, half_dtype, has_bfloat16
from prism.models.products import products_of, weight_and_bias
from prism.plan import Precision

# Left for everything else: activations, inputs on their way, other programs.
_SPARE_BYTES = 64 * 2**20


def at_precision(
    loaded: LoadedModel, precision: Precision, *, emulate: bool = False
) -> LoadedModel:
    """Return a model that computes at another precision; `float32` gives one that shares all.

    Args:
        loaded: with float32 weights; stays as it is. Hooks are not copied.
        precision: of the copy.
        emulate: allow bfloat16 on a processor that has to emulate it, which is slow.

    Raises:
        UnsupportedPrecision: it was loaded otherwise, this device cannot compute so, or memory is
            short.
    """
    model = loaded.model
    device = next(model.parameters()).device
    dtypes = {each.dtype for each in model.parameters() if each.is_floating_point()}
    if precision != "float32" and dtypes != {torch.float32}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise UnsupportedPrecision(
            f"{precision} is made of float32 weights, and {_name(loaded)} was loaded in {names}; "
            f"load it in float32"
        )
    if precision == "half":
        instead = _halves(loaded, device, emulate)
    elif precision == "int8":
        instead = _int8(loaded, device)
    else:
        instead = {}
    origin = None if precision == "float32" else loaded
    return replace(loaded, model=_copied(model, instead), precision=precision, origin=origin)


def own_bytes(loaded: LoadedModel) -> int:
    """Return the bytes of a model's weights; tensors that it uses twice count once."""
    tensors = {each.data_ptr(): each for each in _tensors(loaded.model)}
    modules = loaded.model.modules()
    packed = (each.nbytes for each in modules if isinstance(each, Int8Linear | PackedLinear))
    return sum(each.nbytes for each in tensors.values()) + sum(packed)


def _halves(loaded: LoadedModel, device: torch.device, emulate: bool) -> dict[int, Any]:
    if device.type == "cpu" and not (emulate or has_bfloat16()):
        raise UnsupportedPrecision(
            "half needs bfloat16, which this processor only emulates, slower than float32; use "
            "int8, or allow it with `prism node --emulate-half`"
        )
    parameters = [each for each in loaded.model.parameters() if each.is_floating_point()]
    _check_memory(loaded, "half", device, sum(each.nbytes for each in parameters) / 2)
    dtype = half_dtype(device)
    products = products_of(loaded) if can_pack(device) else []
    packed = {id(module): _packed(module, dtype) for module in products}
    inside = {id(each) for module in products for each in module.parameters()}
    return packed | {
        id(each): nn.Parameter(each.detach().to(dtype), requires_grad=False)
        for each in parameters
        if id(each) not in inside
    }


def _packed(module: Any, dtype: torch.dtype) -> PackedLinear:
    weight_OI, bias_O = weight_and_bias(module)
    return PackedLinear(weight_OI.to(dtype), None if bias_O is None else bias_O.to(dtype))


def _int8(loaded: LoadedModel, device: torch.device) -> dict[int, Any]:
    if device.type != "cpu" or not engine():
        raise UnsupportedPrecision(
            f"torch has no int8 matrix products for {device.type} here; use half"
        )
    products = products_of(loaded)
    if not products:
        raise UnsupportedPrecision(
            f"the blocks of {_name(loaded)} have no matrix products that torch can round; use half"
        )
    _check_memory(loaded, "int8", device, sum(each.weight.numel() for each in products))
    # Patches are alike; a text has tokens, its first above all, that are far larger than others.
    by_row = main_input(loaded.info) != "pixel_values"
    return {id(module): Int8Linear(*weight_and_bias(module), by_row=by_row) for module in products}


def _copied(model: Any, instead: dict[int, Any]) -> Any:
    """Return a copy in which some parts are replaced, by identity, and all tensors are shared."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in _tensors(model)}
    for module in model.modules():
        if hasattr(module, "config"):
            memo[id(module.config)] = module.config
        # Hooks belong to whoever runs a model.
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            memo[id(hooks)] = OrderedDict()
    return copy.deepcopy(model, {**memo, **instead})


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _check_memory(
    loaded: LoadedModel, precision: Precision, device: torch.device, needed: float
) -> None:
    free = free_memory_bytes(device)
    if needed + _SPARE_BYTES > free:
        raise UnsupportedPrecision(
            f"{precision} of {_name(loaded)} needs {needed / 2**20:.0f} MB more and "
            f"{free / 2**20:.0f} MB are free; unload another model, or keep fewer precisions"
        )


def _name(loaded: LoadedModel) -> str:
    return loaded.info.source or type(loaded.model).__name__
