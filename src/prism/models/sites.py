"""Where a loaded model keeps its blocks, found by its family's description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from prism.errors import UnsupportedModel
from prism.models.families import Family, Paths, Projection
from prism.models.norms import SplitNorm


@dataclass(frozen=True, slots=True)
class Site:
    """One block of a loaded model, with the parts partitioning touches."""

    block: nn.Module
    attention: nn.Module
    norm: SplitNorm
    keys: nn.Module | None
    values: nn.Module | None
    projection: Projection


def sites_of(family: Family, model: nn.Module) -> tuple[Site, ...]:
    """Find every block of a loaded model.

    Raises:
        UnsupportedModel: the model is laid out differently from the family's description.
    """
    base = getattr(model, "base_model", model)
    blocks = _first_submodule(base, family.blocks)
    if blocks is not None:
        return tuple(_site(family, block) for block in blocks.children())
    raise UnsupportedModel(
        f"{type(model).__name__} keeps no blocks at {' or '.join(family.blocks)}, as "
        f"{family.name} does in the transformers releases prism knows (>= 5.0)"
    )


def _site(family: Family, block: nn.Module) -> Site:
    def part(paths: Paths) -> nn.Module:
        found = _first_submodule(block, paths)
        if found is None:
            wanted = " or ".join(paths)
            raise UnsupportedModel(f"{type(block).__name__} of {family.name} has no {wanted}")
        return found

    # OPT-350m normalises after attention, so nothing stands between the input and the keys.
    post_norm = getattr(block, "do_layer_norm_before", True) is False
    return Site(
        block=block,
        attention=part(family.attention),
        norm=SplitNorm(part((family.norm,)) if family.norm and not post_norm else None),
        keys=part(family.keys) if family.keys else None,
        values=part(family.values) if family.values else None,
        projection=family.projection,
    )


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
        if found is None:
            return None
    return found if isinstance(found, nn.Module) else None


def _first_submodule(module: nn.Module, paths: Paths) -> nn.Module | None:
    found = (_submodule(module, path) for path in paths)
    return next((each for each in found if each is not None), None)
