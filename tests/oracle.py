"""What partitioned models must compute, written down without any of prism's code.

One process, the plain transformers blocks, and an attention in which every query row is taken on
its own: it attends, by an explicit softmax, to the rows of its own partition and to the mean of
every segment of the other partitions, *repeated* once per real token that it stands for. Slow and
literal; differentiable.
"""

import copy
from collections.abc import Sequence

import torch
from transformers import AttentionInterface, AttentionMaskInterface

_NAME = "repeated_means"


class _Repeated:
    def __init__(self, model, layout, sizes, segments, lag, mask) -> None:
        stops = torch.tensor(sizes).cumsum(0).tolist()
        self.parts = [range(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]
        self.segments, self.lag, self.mask = segments, lag, mask
        self.layout = layout
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

    def segments_of(self, part) -> list[list[int]]:
        pieces = torch.tensor_split(torch.tensor(part), min(self.segments, len(part)))
        return [piece.tolist() for piece in pieces]

    def mean(self, index, row, members, key, value):
        """Return the key and the value `(heads, 1, d)` of one segment's mean."""
        if self.layout.rotary:
            return (x[row][:, members].mean(dim=1, keepdim=True) for x in (key, value))
        source = max(0, index - self.lag)
        mean = self.block_inputs[source][row, members].mean(dim=0, keepdim=True)
        block = self.blocks[index]
        if self.layout.norm:
            mean = block.get_submodule(self.layout.norm)(mean)
        if self.layout.keys == self.layout.values:
            _, k, v = block.get_submodule(self.layout.keys)(mean).chunk(3, dim=-1)
        else:
            k = block.get_submodule(self.layout.keys)(mean)
            v = block.get_submodule(self.layout.values)(mean)
        heads, width = key.shape[1], key.shape[3]
        return k.reshape(heads, 1, width), v.reshape(heads, 1, width)

    def repeated(self, index, row, place, key, value):
        """Return, over all segments the partition `place` sees, every mean count times."""
        keys, values = [], []
        for other, part in enumerate(self.parts):
            if other == place or (self.layout.causal and other > place):
                continue
            for segment in self.segments_of(part):
                members = [i for i in segment if self.is_real(row, i)]
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


def repeated_means(model, layout, sizes: Sequence[int], segments: int, lag: int = 0, mask=None):
    """Return a copy of `model` that computes what partitions of `sizes` rows must compute.

    Args:
        model: a transformers model; stays untouched.
        layout: where it keeps what.
        sizes: rows per partition.
        segments: means per partition.
        lag: 0, or 1 to take means of the previous block's input.
        mask: `(batch, tokens)`, 0 where padded.
    """
    model = copy.deepcopy(model)
    _Repeated(model, layout, sizes, segments, lag, mask)
    model.set_attn_implementation(_NAME)
    return model
