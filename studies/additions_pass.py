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
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from studies.additions_groups import centres_towards_the_end, refined
from torch import nn
from torch.nn.functional import one_hot
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from prism.models.families import Family, Site, family_of, sites_of
from prism.models.inputs import token_mask
from prism.partition.attention import attend
from prism.partition.bias import NEVER, count_bias, own_bias
from prism.partition.clusters import farthest_first
from prism.partition.heads import join_heads
from prism.partition.spans import segment_sizes, spans

NAME = "prism-additions"
_ATTEND = "_prism_additions_attend"


@dataclass(frozen=True)
class Additions:
    """How rows are grouped and what is added to their means; the defaults add nothing.

    Attributes:
        grouping: contiguous segments (the paper's), or clusters.
        judged_by: what makes rows of a cluster similar: the block's input after the affine-free
            part of its normalisation, or the keys of all heads.
        sink_alone: position 0 is a group of its own.
        last_alone: so many last rows of each partition are groups of their own.
        end_weight: the nearer a row is to the partition's end, the more its distance from the
            centres counts; 0 = all count alike.
        refined: after choosing, one Lloyd step: each row joins the most similar group mean.
        kept_blocks: groups serve so many blocks.
        key_variance: half the variance of a group's logits is added to its mean's logit.
        lag: a block attends to the means of the previous block's input.
        fresh_last_block: the last block does not lag.
        class_copies: each partition holds a class token of its own; none goes into means.
    """

    grouping: Literal["segments", "clusters"] = "clusters"
    judged_by: Literal["input", "keys"] = "input"
    sink_alone: bool = False
    last_alone: int = 0
    end_weight: float = 0.0
    refined: bool = False
    kept_blocks: int = 1
    key_variance: bool = False
    lag: int = 0
    fresh_last_block: bool = False
    class_copies: bool = False

    def __post_init__(self) -> None:
        if self.lag and (self.judged_by == "keys" or self.key_variance):
            raise ValueError("with lag the keys of the previous block are needed, and are gone")


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
            owner_Bn = self._owners_of_part(
                y_BND[:, start:stop], self._token_BN[:, start:stop], source
            )
            owner_BN[:, start:stop] = owner_Bn + part * self._means
        left_out = ~self._token_BN
        if self._additions.class_copies:
            left_out = left_out | (self._source_N == 0)
        return owner_BN.masked_fill(left_out, -1)

    def _owners_of_part(
        self, y_BnD: torch.Tensor, token_Bn: torch.Tensor, source: list[int]
    ) -> torch.Tensor:
        """Return the group of each row of one partition, from 0 on; 0 too for rows in none."""
        additions, rows = self._additions, len(source)
        alone = list(range(rows - additions.last_alone, rows))
        if additions.sink_alone and source[0] == 0:
            alone = [0, *alone]
        copies = [0] if additions.class_copies and source[0] == 0 else []
        rest = [row for row in range(rows) if row not in (*alone, *copies)]
        owner_Bn = torch.zeros(y_BnD.shape[:2], dtype=torch.long)
        owner_Bn[:, alone] = torch.arange(len(alone))
        groups = self._means - len(alone)
        if additions.grouping == "segments" or groups >= len(rest):
            sizes = segment_sizes(len(rest), groups)
            owner_Bn[:, rest] = len(alone) + torch.repeat_interleave(torch.tensor(sizes))
            return owner_Bn
        y_BnD, token_Bn = y_BnD[:, rest], token_Bn[:, rest]
        if additions.end_weight:
            to_end_n = 1 - torch.tensor(rest) / rows
            chosen_Bn = centres_towards_the_end(
                y_BnD, groups, token_Bn, to_end_n, additions.end_weight
            )
        else:
            chosen_Bn = farthest_first(y_BnD, groups, token_Bn)
        if additions.refined:
            chosen_Bn = refined(chosen_Bn, y_BnD, groups, token_Bn)
        owner_Bn[:, rest] = len(alone) + chosen_Bn
        return owner_Bn


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
