"""The only contact with transformers' attention: open a model up for one partitioned pass.

`attached(model, family, forward_pass)` lasts one forward call. It points the model's attention at
`prism`, hooks its blocks, and undoes both: outside it the model is untouched, so `local` runs plain
transformers and one loaded model serves all plans.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from prism.models.families import Family, Site, sites_of
from prism.partition.attention import attend
from prism.partition.forward_pass import ForwardPass

NAME = "prism"
_BINDING = "_prism_binding"


class _Binding:
    """Ties one attention module to its place in one forward pass."""

    def __init__(self, site: Site, index: int, forward_pass: ForwardPass, rotary: bool) -> None:
        self.site = site
        self.index = index
        self.forward_pass = forward_pass
        self.rotary = rotary

    def extend(
        self, key_BGnd: torch.Tensor, value_BGnd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return own keys and values followed by the context's."""
        if self.rotary:
            context = self.forward_pass.keyed_context(self.index, key_BGnd, value_BGnd)
        else:
            rows_BCD = self.forward_pass.context(self.index)
            context = None if rows_BCD is None else self._project(rows_BCD, key_BGnd)
        if context is None:
            return key_BGnd, value_BGnd
        if self.forward_pass.replaces_own_keys(self.index):
            return context
        return (
            torch.cat([key_BGnd, context[0]], dim=2),
            torch.cat([value_BGnd, context[1]], dim=2),
        )

    def _project(
        self, rows_BCD: torch.Tensor, like_BGnd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply the block's own normalisation and projections to rows of others' block inputs."""
        site = self.site
        normed = rows_BCD if site.norm is None else site.norm(rows_BCD)
        if site.projection == "fused_conv1d":
            key, value = _project_conv1d(site.keys, normed)
        else:
            assert site.keys is not None and site.values is not None
            key, value = site.keys(normed), site.values(normed)
        by_head = (*rows_BCD.shape[:2], like_BGnd.shape[1], like_BGnd.shape[3])
        return key.view(by_head).transpose(1, 2), value.view(by_head).transpose(1, 2)


def _project_conv1d(module: Any, rows_BCD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Make keys and values, not queries, with GPT-2's fused Conv1D (weight: in x out)."""
    width = rows_BCD.shape[-1]
    out = torch.addmm(module.bias[width:], rows_BCD.reshape(-1, width), module.weight[:, width:])
    key_value = out.view(*rows_BCD.shape[:2], 2 * width)
    return key_value[..., :width].contiguous(), key_value[..., width:].contiguous()


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    binding: _Binding | None = module.__dict__.get(_BINDING)
    if binding is None:  # e.g. the decoder behind a partitioned encoder
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    # transformers' own function would crop the keys to the query length when it thinks the
    # attention is causal, so the kernel is called directly.
    key, value = binding.extend(key, value)
    bias = binding.forward_pass.bias(attention_mask)
    return attend(query, key, value, bias, scaling, dropout), None


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """Build the mask over all positions; never leave causality to the kernel's own flag."""
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


# Without a mask function of the same name transformers silently drops the padding mask.
AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)


@contextmanager
def attached(model: nn.Module, family: Family, forward_pass: ForwardPass) -> Iterator[None]:
    """Run the forward call inside this context under `forward_pass`.

    Raises:
        UnsupportedModel: the model is laid out differently from its family.
    """
    sites = sites_of(family, model)
    with ExitStack() as undo:
        _use_prism_attention(model, undo)
        for index, site in enumerate(sites):
            binding = _Binding(site, index, forward_pass, family.rotary)
            site.attention.__dict__[_BINDING] = binding
            undo.callback(site.attention.__dict__.pop, _BINDING, None)
            hook = site.block.register_forward_pre_hook(_before_block(binding), with_kwargs=True)
            undo.callback(hook.remove)
        undo.callback(sites[-1].block.register_forward_hook(_after_last(forward_pass)).remove)
        yield


def _use_prism_attention(model: nn.Module, undo: ExitStack) -> None:
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "config")]
    for config in {id(module.config): module.config for module in modules}.values():
        undo.callback(setattr, config, "_attn_implementation_internal", config._attn_implementation)
        config._attn_implementation_internal = NAME


def _before_block(binding: _Binding) -> Any:
    forward_pass, index = binding.forward_pass, binding.index

    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        if index == 0:
            hidden = forward_pass.enter(hidden)
        else:
            hidden = forward_pass.before_block(index, hidden)
        kwargs = _own_positions(forward_pass, kwargs)
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    return hook


def _own_positions(forward_pass: ForwardPass, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Slice what is indexed by position; the attention mask is translated later, by `bias`."""
    sliced = dict(kwargs)
    rotary = kwargs.get("position_embeddings")
    if rotary is not None:
        sliced["position_embeddings"] = tuple(
            forward_pass.slice_positions(x, dim=-2) for x in rotary
        )
    positions = kwargs.get("position_ids")
    if positions is not None:
        sliced["position_ids"] = forward_pass.slice_positions(positions, dim=-1)
    return sliced


def _after_last(forward_pass: ForwardPass) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (forward_pass.leave(output[0]), *output[1:])
        return forward_pass.leave(output)

    return hook
