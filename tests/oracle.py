"""What partitioned models must compute, written down without any of prism's code.

One process, the plain transformers blocks, and an attention in which every query row is taken on
its own: it attends, by an explicit softmax, to the rows of its own partition and to the mean of
every group of the other partitions, *repeated* once per real token that it stands for. Groups are
segments, or clusters chosen by explicit loops; the key and the value of a cluster are the averages
of its members' keys and values. Slow and literal; differentiable.
"""

import copy
from collections.abc import Sequence

import torch
from transformers import AttentionInterface, AttentionMaskInterface

_NAME = "repeated_means"


class _Repeated:
    def __init__(self, model, layout, sizes, segments, lag, mask, clusters) -> None:
        stops = torch.tensor(sizes).cumsum(0).tolist()
        self.parts = [range(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]
        self.segments, self.lag, self.mask = segments, lag, mask
        self.layout, self.clusters = layout, clusters
        self.blocks = list(model.get_submodule(layout.blocks))
        self.block_inputs = {}
        for index, block in enumerate(self.blocks):
            block.get_submodule(layout.attention).oracle = (self, index)
            block.register_forward_pre_hook(self.remember(index), with_kwargs=True)

    def remember(self, index):
        def hook(block, args, kwargs):
            self.block_inputs[index] = args[0] if args else kwargs["hidden_states"]

        return hook

    def is_real(self, row, position) -> bool:
        return self.mask is None or bool(self.mask[row, position])

    def groups_of(self, index, row, part, key) -> list[list[int]]:
        count = min(self.segments, len(part))
        if self.clusters and count < len(part):
            members = [i for i in part if self.is_real(row, i)]
            return self.clusters_of(self.judged_by(index, row, key), members, count)
        return [piece.tolist() for piece in torch.tensor_split(torch.tensor(part), count)]

    def judged_by(self, index, row, key):
        """Return the vectors of a sample whose directions are compared."""
        if self.layout.rotary:
            return key[row].transpose(0, 1).flatten(1).detach()
        return self.plain_norm(index, self.block_inputs[max(0, index - self.lag)][row].detach())

    def clusters_of(self, y, members, count) -> list[list[int]]:
        """Group real positions: farthest first, then each joins the centre most like it."""
        u = (y / y.norm(dim=-1, keepdim=True)).double()
        middle = sum(u[i] for i in members)
        centres = [max(members, key=lambda i: float(u[i] @ middle))] if members else []
        while members and len(centres) < count:
            centres.append(min(members, key=lambda i: max(float(u[i] @ u[c]) for c in centres)))
        groups = [[] for _ in centres]
        for i in members:
            alike = [float(u[i] @ u[c]) for c in centres]
            groups[alike.index(max(alike))].append(i)
        return groups

    def plain_norm(self, index, x):
        """Return what a block's first normalisation makes of `x` before weights and bias."""
        if not self.layout.norm:
            return x
        norm = self.blocks[index].get_submodule(self.layout.norm)
        if isinstance(norm, torch.nn.LayerNorm):
            x = x - x.mean(dim=-1, keepdim=True)
        return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()

    def mean(self, index, row, members, key, value):
        """Return the key and the value `(heads, 1, d)` of one group's mean."""
        if self.layout.rotary:
            return (x[row][:, members].mean(dim=1, keepdim=True) for x in (key, value))
        rows = self.block_inputs[max(0, index - self.lag)][row, members]
        if not self.clusters:
            rows = rows.mean(dim=0, keepdim=True)
        block = self.blocks[index]
        if self.layout.norm:
            rows = block.get_submodule(self.layout.norm)(rows)
        if self.layout.keys == self.layout.values:
            _, k, v = block.get_submodule(self.layout.keys)(rows).chunk(3, dim=-1)
        else:
            k = block.get_submodule(self.layout.keys)(rows)
            v = block.get_submodule(self.layout.values)(rows)
        heads, width = key.shape[1], key.shape[3]
        return (x.mean(dim=0).reshape(heads, 1, width) for x in (k, v))

    def repeated(self, index, row, place, key, value):
        """Return, over all groups the partition `place` sees, every mean count times."""
        keys, values = [], []
        for other, part in enumerate(self.parts):
            if other == place or (self.layout.causal and other > place):
                continue
            for group in self.groups_of(index, row, part, key):
                members = [i for i in group if self.is_real(row, i)]
                if members:
                    k, v = self.mean(index, row, members, key, value)
                    keys += [k] * len(members)
                    values += [v] * len(members)
        return keys, values

    def attend(self, index, query, key, value, scaling):
        rows = []
        for row in range(query.shape[0]):
            positions = []
            for place, part in enumerate(self.parts):
                keys, values = self.repeated(index, row, place, key, value)
                for i in part:
                    own = [
                        j
                        for j in part
                        if self.is_real(row, j) and not (self.layout.causal and j > i)
                    ]
                    k = torch.cat([key[row][:, own], *keys], dim=1)
                    v = torch.cat([value[row][:, own], *values], dim=1)
                    positions.append(_softmax_attention(query[row, :, i], k, v, scaling))
            rows.append(torch.stack(positions))
        return torch.stack(rows)


def _softmax_attention(query_Hd, key_Gkd, value_Gkd, scaling):
    heads = []
    for head, query in enumerate(query_Hd):
        group = head * key_Gkd.shape[0] // query_Hd.shape[0]
        weights = (scaling * (key_Gkd[group] @ query)).exp()
        heads.append((weights / weights.sum().clamp(min=1e-30)) @ value_Gkd[group])
    return torch.stack(heads)


def _attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    oracle, index = module.oracle
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return oracle.attend(index, query, key, value, scaling), None


# The oracle hides padding and later positions itself.
AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, lambda *args, **kwargs: None)


def repeated_means(
    model, layout, sizes: Sequence[int], segments: int, lag: int = 0, mask=None, clusters=False
):
    """Return a copy of `model` that computes what partitions of `sizes` rows must compute.

    Args:
        model: a transformers model; stays untouched.
        layout: where it keeps what.
        sizes: rows per partition.
        segments: means per partition.
        lag: 0, or 1 to take means of the previous block's input.
        mask: `(batch, tokens)`, 0 where padded.
        clusters: group rows by similarity, not in segments.
    """
    model = copy.deepcopy(model)
    _Repeated(model, layout, sizes, segments, lag, mask, clusters)
    model.set_attn_implementation(_NAME)
    return model
