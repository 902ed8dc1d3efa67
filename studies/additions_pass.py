"""One partitioned forward pass in one process, with each addition to the means as an option.

    block 0      gets all positions, and with `class_copies` a class token per partition
    each block   groups the rows of every partition, averages them, and lets each row attend to the
                 rows of its own partition and to the means of the others
    at the end   the class token is the average of its copies

`prism.partition.virtual` never sees queries, and keys in rotary families only; some additions need
both, so this pass puts an attention function of its own into the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from studies.additions_groups import Additions, owners_of_part
from torch import nn
from torch.nn.functional import one_hot
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from prism.models.families import Family, family_of
from prism.models.inputs import token_mask
from prism.models.sites import Site, sites_of
from prism.partition.attention import attend
from prism.partition.bias import NEVER, count_bias, own_bias
from prism.partition.heads import join_heads
from prism.partition.spans import spans

NAME = "prism-additions"
_ATTEND = "_prism_additions_attend"


@contextmanager
def trying(
    model: PreTrainedModel,
    additions: Additions,
    nodes: int,
    means: int,
    attention_mask: torch.Tensor | None = None,
) -> Iterator[None]:
    """Make forward calls inside this context compute what equal partitions with `additions` would.

    Args:
        model: of a family with separate projections for keys and values, or a rotary one.
        additions: the options.
        nodes: number of partitions.
        means: of each partition.
        attention_mask: as given to the forward call.
    """
    family = family_of(model.config)
    sites = sites_of(family, model)
    real_BN = token_mask(str(model.main_input_name), attention_mask)
    running = AdditionsPass(additions, nodes, means, family, sites, real_BN)
    with ExitStack() as undo:
        for index, site in enumerate(sites):
            before = partial(running.before_block, index)
            undo.callback(site.block.register_forward_pre_hook(before, with_kwargs=True).remove)
            vars(site.attention)[_ATTEND] = partial(running.attend, index)
            undo.callback(vars(site.attention).pop, _ATTEND)
        undo.callback(sites[-1].block.register_forward_hook(running.after_last).remove)
        undo.callback(model.set_attn_implementation, model.config._attn_implementation)
        model.set_attn_implementation(NAME)
        yield


class AdditionsPass:
    """One forward pass; `trying` puts it into a model."""

    def __init__(
        self,
        additions: Additions,
        nodes: int,
        means: int,
        family: Family,
        sites: tuple[Site, ...],
        real_BN: torch.Tensor | None,
    ) -> None:
        self._additions = additions
        self._nodes = nodes
        self._means = means
        self._family = family
        self._sites = sites
        self._real_BN = real_BN
        self._inputs: dict[int, torch.Tensor] = {}
        self._owners: dict[int, torch.Tensor] = {}

    def before_block(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See the input of a block; cut that of the first one."""
        hidden = args[0] if args else kwargs["hidden_states"]
        if index == 0:
            hidden = self._enter(hidden)
        self._inputs[index] = hidden
        self._inputs.pop(index - 2, None)
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def after_last(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Turn the copies of the class token into one."""
        if not self._additions.class_copies:
            return output
        hidden = output[0] if isinstance(output, tuple) else output
        copy_N = self._source_N == 0
        class_B1D = hidden[:, copy_N].mean(1, keepdim=True)
        hidden = torch.cat([class_B1D, hidden[:, ~copy_N]], dim=1)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    def _enter(self, hidden_BND: torch.Tensor) -> torch.Tensor:
        self._owners.clear()
        batch, length, _ = hidden_BND.shape
        parts = [list(range(part.start, part.stop)) for part in spans(length, self._nodes)]
        if self._additions.class_copies:
            parts = [parts[0], *([0, *rows] for rows in parts[1:])]
        self._parts = parts
        self._source_N = torch.tensor([row for rows in parts for row in rows])
        self._part_of_N = torch.repeat_interleave(torch.tensor([len(rows) for rows in parts]))
        real_BN = torch.ones(batch, length, dtype=torch.bool)
        if self._real_BN is not None:
            real_BN = self._real_BN
        self._token_BN = real_BN[:, self._source_N]
        own = own_bias(self._token_BN, len(self._source_N), self._family.causal)
        foreign_NN = self._part_of_N[:, None] != self._part_of_N[None, :]
        self._own_bias = own.masked_fill(foreign_NN, NEVER)
        part_of_M = torch.arange(self._nodes * self._means) // self._means
        mine, theirs = self._part_of_N[:, None], part_of_M[None, :]
        self._hidden_NM = mine <= theirs if self._family.causal else mine == theirs
        return hidden_BND[:, self._source_N]

    def attend(
        self,
        index: int,
        query_BHNd: torch.Tensor,
        key_BGNd: torch.Tensor,
        value_BGNd: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Return the attention of every row over its partition's rows and the others' means."""
        base = max(0, index - self._lag_of(index))
        owner_BN = self._owner_at(base, key_BGNd)
        groups = self._nodes * self._means
        member_BMN = (one_hot(owner_BN.clamp(min=0), groups) * (owner_BN >= 0)[..., None]).mT
        counts_BM = member_BMN.sum(-1).float()
        pool_BMN = member_BMN / counts_BM.clamp(min=1)[..., None]
        keys, values = self._averaged(index, base, pool_BMN, key_BGNd, value_BGNd)
        bias = count_bias(counts_BM)
        if self._additions.key_variance:
            bias = bias + half_variance(query_BHNd, key_BGNd, keys, pool_BMN, scaling)
        bias = bias.masked_fill(self._hidden_NM, NEVER)
        return attend(
            query_BHNd,
            torch.cat([key_BGNd, keys], dim=2),
            torch.cat([value_BGNd, values], dim=2),
            torch.cat([self._own_bias.expand(*bias.shape[:3], -1), bias], dim=3),
            scaling,
        )

    def _lag_of(self, index: int) -> int:
        spared = self._additions.fresh_last_block and index == len(self._sites) - 1
        return 0 if spared else self._additions.lag

    def _averaged(
        self,
        index: int,
        base: int,
        pool_BMN: torch.Tensor,
        key_BGNd: torch.Tensor,
        value_BGNd: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values `(B, G, M, d)` of the means."""
        if self._family.rotary:
            return pool_BMN[:, None] @ key_BGNd, pool_BMN[:, None] @ value_BGNd
        site, rows_BND = self._sites[index], self._inputs[base]
        if self._additions.grouping == "segments":
            normed_BMD = site.norm.whole(pool_BMN @ rows_BND)
        else:
            normed_BMD = site.norm.affine(pool_BMN @ site.norm.standardise(rows_BND))
        assert site.keys is not None and site.values is not None
        by_head = (*normed_BMD.shape[:2], key_BGNd.shape[1], key_BGNd.shape[3])
        key, value = (
            project(normed_BMD).view(by_head).transpose(1, 2)
            for project in (site.keys, site.values)
        )
        return key, value

    def _owner_at(self, base: int, key_BGNd: torch.Tensor) -> torch.Tensor:
        """Return the group `(B, N)` of each row at the input of a block; -1 = goes into none."""
        first = base - base % self._additions.kept_blocks
        if first not in self._owners:
            if self._additions.judged_by == "keys":
                y_BND = join_heads(key_BGNd)
            else:
                y_BND = self._sites[base].norm.standardise(self._inputs[base])
            self._owners[first] = self._owners_by(y_BND)
        return self._owners[first]

    def _owners_by(self, y_BND: torch.Tensor) -> torch.Tensor:
        owner_BN = torch.full(y_BND.shape[:2], -1)
        stop = 0
        for part, source in enumerate(self._parts):
            start, stop = stop, stop + len(source)
            y_BnD, token_Bn = y_BND[:, start:stop], self._token_BN[:, start:stop]
            owner_Bn = owners_of_part(self._additions, self._means, y_BnD, token_Bn, source)
            owner_BN[:, start:stop] = owner_Bn + part * self._means
        left_out = ~self._token_BN
        if self._additions.class_copies:
            left_out = left_out | (self._source_N == 0)
        return owner_BN.masked_fill(left_out, -1)


def half_variance(
    query_BHNd: torch.Tensor,
    key_BGNd: torch.Tensor,
    mean_BGMd: torch.Tensor,
    pool_BMN: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """Return half the variance of the logits within each group, `(B, H, 1, M)`.

    Taken as alike in all directions, and for the average query: scaling^2 / 2 * mean |q|^2 times
    the mean over dimensions of the variance of the keys.
    """
    variance_BGMd = pool_BMN[:, None] @ key_BGNd.square() - mean_BGMd.square()
    variance_BGM = variance_BGMd.clamp(min=0).mean(-1)
    variance_BHM = variance_BGM.repeat_interleave(query_BHNd.shape[1] // key_BGNd.shape[1], dim=1)
    length_BH = query_BHNd.square().sum(-1).mean(-1)
    return (0.5 * scaling**2 * length_BH[..., None] * variance_BHM)[:, :, None]


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return vars(module)[_ATTEND](query, key, value, scaling), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
