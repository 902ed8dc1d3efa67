"""The only contact with transformers' attention: open a model up for partitioned passes.

`Instrumented` hooks the blocks of a model once. `running(forward_pass)` points the model's
attention at that pass for as long as it lasts; outside it the hooks do nothing, so `local` runs
plain transformers and one loaded model serves all plans. `attached` is both in one, for a model
that is somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.pytorch_utils import Conv1D

from prism.errors import Cancelled
from prism.models.families import Family
from prism.models.sites import Site, sites_of
from prism.partition.attention import attend
from prism.partition.forward_pass import ForwardPass

NAME = "prism"
_BINDING = "_prism_binding"

ShouldCancel = Callable[[], bool]
BeforeBlock = Callable[[int, torch.Tensor], torch.Tensor]
"""From the index of a block and its input to the input it shall get."""


def never() -> bool:
    """Return that nobody gives the request up."""
    return False


class Instrumented:
    """A model whose blocks can run under a `ForwardPass`, prepared once for all requests.

    Several of them may hold one model; the innermost `running` decides. One thread at a time.

    Args:
        model: a transformers model.
        family: what it is.

    Raises:
        UnsupportedModel: the model is laid out differently from its family.
    """

    def __init__(self, model: nn.Module, family: Family) -> None:
        self._bindings = [
            _Binding(site, index, family.rotary)
            for index, site in enumerate(sites_of(family, model))
        ]
        modules: list[Any] = [module for module in model.modules() if hasattr(module, "config")]
        self._configs = list({id(module.config): module.config for module in modules}.values())
        self._hooks = ExitStack()
        for binding in self._bindings:
            block = binding.site.block
            hook = block.register_forward_pre_hook(binding.before_block, with_kwargs=True)
            self._hooks.callback(hook.remove)
        last = self._bindings[-1]
        self._hooks.callback(last.site.block.register_forward_hook(last.after_last).remove)

    @contextmanager
    def running(
        self,
        forward_pass: ForwardPass | None,
        should_cancel: ShouldCancel = never,
        before_block: BeforeBlock | None = None,
    ) -> Iterator[None]:
        """Run forward calls inside this context under `forward_pass`.

        Args:
            forward_pass: decides what the blocks compute; None = what plain transformers would.
            should_cancel: asked before every block; once it says yes the call ends in `Cancelled`.
            before_block: without a forward pass, sees and may change every block's input; what it
                raises ends the call.
        """
        with ExitStack() as undo:
            if forward_pass is not None:
                for config in self._configs:
                    undo.callback(_use_prism_attention(config))
            for binding in self._bindings:
                undo.callback(binding.install(forward_pass, should_cancel, before_block))
            yield

    def remove(self) -> None:
        """Take the hooks off the model. Safe to call twice."""
        self._hooks.close()


@contextmanager
def attached(model: nn.Module, family: Family, forward_pass: ForwardPass) -> Iterator[None]:
    """Run forward calls inside this context under `forward_pass`; leave the model as it was.

    Raises:
        UnsupportedModel: the model is laid out differently from its family.
    """
    instrumented = Instrumented(model, family)
    try:
        with instrumented.running(forward_pass):
            yield
    finally:
        instrumented.remove()


def _use_prism_attention(config: Any) -> Callable[[], None]:
    """Point a configuration at the attention of this module; return what undoes it."""
    before = config._attn_implementation
    config._attn_implementation_internal = NAME

    def undo() -> None:
        config._attn_implementation_internal = before

    return undo


class _Binding:
    """Ties one block and its attention to the pass that is running.

    It is found through the attention module, and only while a pass runs: a hook whose binding is
    not there belongs to a holder of the model who is not running, and does nothing.
    """

    def __init__(self, site: Site, index: int, rotary: bool) -> None:
        self.site = site
        self._index = index
        self._rotary = rotary
        self.forward_pass: ForwardPass | None = None
        self._should_cancel: ShouldCancel = never
        self._before_block: BeforeBlock | None = None

    def install(
        self,
        forward_pass: ForwardPass | None,
        should_cancel: ShouldCancel,
        before_block: BeforeBlock | None,
    ) -> Callable[[], None]:
        """Become the binding of this block; return what gives the place back."""
        attributes = self.site.attention.__dict__
        before = (
            attributes.get(_BINDING),
            self.forward_pass,
            self._should_cancel,
            self._before_block,
        )
        self.forward_pass, self._should_cancel = forward_pass, should_cancel
        self._before_block = before_block
        attributes[_BINDING] = self

        def undo() -> None:
            outer, self.forward_pass, self._should_cancel, self._before_block = before
            if outer is None:
                del attributes[_BINDING]
            else:
                attributes[_BINDING] = outer

        return undo

    def _running(self) -> bool:
        return self.site.attention.__dict__.get(_BINDING) is self

    def before_block(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Stop here if the request was given up; else let the pass see and cut the input."""
        if not self._running():
            return None
        if self._should_cancel():
            raise Cancelled(f"the request was given up; it ended before block {self._index}")
        forward_pass = self.forward_pass
        if forward_pass is None and self._before_block is None:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        if forward_pass is None:
            assert self._before_block is not None
            hidden = self._before_block(self._index, hidden)
        elif self._index == 0:
            hidden = forward_pass.enter(hidden, self.site.norm.standardise)
        else:
            hidden = forward_pass.before_block(self._index, hidden, self.site.norm.standardise)
        if forward_pass is not None:
            kwargs = _own_positions(forward_pass, kwargs)
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def after_last(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Let the pass turn the last block's output into the rows the model head needs."""
        if not self._running() or self.forward_pass is None:
            return None
        if isinstance(output, tuple):
            return (self.forward_pass.leave(output[0]), *output[1:])
        return self.forward_pass.leave(output)

    def extend(
        self, forward_pass: ForwardPass, key_BGnd: torch.Tensor, value_BGnd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return own keys and values followed by the context's."""
        if self._rotary:
            context = forward_pass.keyed_context(self._index, key_BGnd, value_BGnd)
        else:
            rows_BCD = forward_pass.context(self._index)
            context = None
            if rows_BCD is not None:
                norm = self.site.norm
                finish = norm.affine if forward_pass.standardised else norm.whole
                context = self._project(finish(rows_BCD), key_BGnd)
        if context is None:
            return key_BGnd, value_BGnd
        if forward_pass.replaces_own_keys(self._index):
            return context
        return (
            torch.cat([key_BGnd, context[0]], dim=2),
            torch.cat([value_BGnd, context[1]], dim=2),
        )

    def _project(
        self, normed_BCD: torch.Tensor, like_BGnd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make keys and values of normalised rows, with the block's own projections."""
        site = self.site
        if isinstance(site.keys, Conv1D):
            key, value = _project_conv1d(site.keys, normed_BCD)
        elif site.projection == "fused_conv1d":  # queries come along; such rows are few
            assert site.keys is not None
            key, value = site.keys(normed_BCD)[..., normed_BCD.shape[-1] :].chunk(2, dim=-1)
        else:
            assert site.keys is not None and site.values is not None
            key, value = site.keys(normed_BCD), site.values(normed_BCD)
        by_head = (*normed_BCD.shape[:2], like_BGnd.shape[1], like_BGnd.shape[3])
        return key.view(by_head).transpose(1, 2), value.view(by_head).transpose(1, 2)


def _project_conv1d(module: Any, rows_BCD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Make keys and values, not queries, with GPT-2's fused Conv1D (weight: in x out)."""
    width = rows_BCD.shape[-1]
    out = torch.addmm(module.bias[width:], rows_BCD.reshape(-1, width), module.weight[:, width:])
    key_value = out.view(*rows_BCD.shape[:2], 2 * width)
    return key_value[..., :width].contiguous(), key_value[..., width:].contiguous()


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
    forward_pass = None if binding is None else binding.forward_pass
    if binding is None or forward_pass is None:  # e.g. the decoder behind a partitioned encoder
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    # transformers' own function would crop the keys to the query length when it thinks the
    # attention is causal, so the kernel is called directly.
    key, value = binding.extend(forward_pass, key, value)
    bias = forward_pass.bias(attention_mask)
    return attend(query, key, value, bias, scaling, dropout), None


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """Build the mask over all positions; never leave causality to the kernel's own flag."""
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


# Without a mask function of the same name transformers silently drops the padding mask.
AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
