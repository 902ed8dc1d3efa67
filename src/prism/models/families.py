"""The families prism can partition, one row of a table each.

A row says where a family keeps its blocks, what normalises a block's input, and which modules make
keys and values of it. It never sees a rank, a plan or a transport. Paths are attribute paths in
transformers >= 5.0; where releases differ, a row lists the path of each, the newest first unless an
older one would match by accident.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import transformers
from packaging.version import Version

from prism.errors import UnsupportedModel
from prism.plan import ModelShape

RELEASE = Version(transformers.__version__)
Projection = Literal["separate", "fused_conv1d"]
Paths = tuple[str, ...]  # alternatives: the first that exists is taken


@dataclass(frozen=True, slots=True)
class Family:
    """Where one family keeps what partitioning needs.

    Attributes:
        name: the family's name in tables and errors.
        model_types: values of `config.model_type` that belong to it.
        blocks: paths from the base model to the list of blocks.
        attention: paths in a block to the module that calls the attention function.
        norm: path in a block to what normalises the input before keys and values; None = nothing.
        keys, values: paths in a block to the projections (`separate`), or both to one Conv1D that
            makes queries, keys and values (`fused_conv1d`); empty where they are not needed.
        causal: a position attends only to itself and earlier ones.
        rotary: positions live in the keys, so keys and values are exchanged after projection.
        first_row_classes: model classes whose whole output follows from the first row alone.
        tail_rows: whether the model accepts only the last rows after its blocks
            (`logits_to_keep`).
        image_tokens: tokens besides the patches (class token, ...), for vision models.
        since: the first transformers release in which its attention can be replaced.
    """

    name: str
    model_types: tuple[str, ...]
    blocks: Paths
    attention: Paths
    norm: str | None = None
    keys: Paths = ()
    values: Paths = ()
    projection: Projection = "separate"
    causal: bool = False
    rotary: bool = False
    first_row_classes: tuple[str, ...] = ()
    tail_rows: bool = False
    image_tokens: int = 0
    since: str = "5.0"


class _Attention(TypedDict):
    attention: Paths
    keys: Paths
    values: Paths


# ViT, DeiT < 5.9 and DINOv2 < 5.18 wrap the module that attends in another called `attention`.
_VIT_ATTENTION: _Attention = {
    "attention": ("attention.attention", "attention"),
    "keys": ("attention.k_proj", "attention.attention.key"),
    "values": ("attention.v_proj", "attention.attention.value"),
}
_SELF_ATTENTION: _Attention = {
    "attention": ("self_attn",),
    "keys": ("self_attn.k_proj",),
    "values": ("self_attn.v_proj",),
}


def _clip(name: str, image_tokens: int = 0, causal: bool = False) -> Family:
    wrapped = f"{name.split('_')[1]}_model.encoder.layers"  # CLIP < 5.21, SigLIP < 5.6
    return Family(
        name=name,
        model_types=(f"{name}_model",),
        blocks=("encoder.layers", wrapped),
        norm="layer_norm1",
        **_SELF_ATTENTION,
        image_tokens=image_tokens,
        causal=causal,
    )


def _vit(name: str, image_tokens: int, first_row_classes: tuple[str, ...]) -> Family:
    return Family(
        name=name,
        model_types=(name,),
        blocks=("layers", "encoder.layer"),  # the latter in transformers < 5.9
        norm="layernorm_before",
        **_VIT_ATTENTION,
        first_row_classes=first_row_classes,
        image_tokens=image_tokens,
    )


def _bert(name: str) -> Family:
    return Family(
        name=name,
        model_types=(name,),
        blocks=("encoder.layer",),
        attention=("attention.self",),
        keys=("attention.self.key",),
        values=("attention.self.value",),
        first_row_classes=(f"{'Bert' if name == 'bert' else 'Roberta'}ForSequenceClassification",),
    )


def _llama(name: str) -> Family:
    return Family(
        name=name,
        model_types=(name,),
        blocks=("layers",),
        attention=("self_attn",),
        causal=True,
        rotary=True,
        tail_rows=True,
    )


FAMILIES: tuple[Family, ...] = (
    _vit("vit", 1, ("ViTForImageClassification",)),
    _vit("deit", 2, ("DeiTForImageClassification",)),
    Family(
        name="dinov2",
        model_types=("dinov2",),
        blocks=("encoder.layer",),
        norm="norm1",
        **_VIT_ATTENTION,
        image_tokens=1,
    ),
    _clip("clip_vision", image_tokens=1),
    _clip("clip_text", causal=True),
    _clip("siglip_vision"),
    _bert("bert"),
    _bert("roberta"),
    Family(
        name="distilbert",
        model_types=("distilbert",),
        blocks=("transformer.layer",),
        attention=("attention",),
        keys=("attention.k_lin",),
        values=("attention.v_lin",),
        first_row_classes=("DistilBertForSequenceClassification",),
    ),
    Family(
        name="gpt2",
        model_types=("gpt2",),
        blocks=("h",),
        attention=("attn",),
        norm="ln_1",
        keys=("attn.c_attn",),
        values=("attn.c_attn",),
        projection="fused_conv1d",
        causal=True,
    ),
    Family(
        name="opt",
        model_types=("opt",),
        blocks=("decoder.layers", "layers"),
        norm="self_attn_layer_norm",
        **_SELF_ATTENTION,
        causal=True,
        tail_rows=True,
    ),
    Family(
        name="whisper",
        model_types=("whisper",),
        blocks=("encoder.layers", "layers"),
        norm="self_attn_layer_norm",
        **_SELF_ATTENTION,
    ),
    Family(
        name="gpt_neox",
        model_types=("gpt_neox",),
        blocks=("layers",),
        attention=("attention",),
        causal=True,
        rotary=True,
        tail_rows=True,
    ),
    _llama("llama"),
    _llama("qwen2"),
    _llama("qwen3"),
    Family(
        name="modernbert",
        model_types=("modernbert",),
        blocks=("layers",),
        attention=("attn",),
        rotary=True,
        since="5.1",
    ),
)

_RELATIVE_BIAS = "adds a relative-position bias table inside each attention, indexed by position"
REFUSED: dict[str, str] = {
    "t5": _RELATIVE_BIAS,
    "mt5": _RELATIVE_BIAS,
    "umt5": _RELATIVE_BIAS,
    "swin": f"attends in shifted windows and {_RELATIVE_BIAS}",
    "swinv2": f"attends in shifted windows and {_RELATIVE_BIAS}",
    "beit": _RELATIVE_BIAS,
    "deberta": "computes attention from relative positions",
    "deberta-v2": "computes attention from relative positions",
    "mamba": "has no attention to partition",
}


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration.

    Raises:
        UnsupportedModel: the architecture cannot be partitioned, or is not known; says why.
    """
    model_type = str(getattr(config, "model_type", "") or type(config).__name__)
    if model_type in REFUSED:
        raise UnsupportedModel(f"{model_type} cannot be partitioned: it {REFUSED[model_type]}")
    for family in FAMILIES:
        if model_type in family.model_types:
            _refuse_variants(family, config)
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise UnsupportedModel(f"{model_type!r} is no family prism knows; it partitions {known}")


def _refuse_variants(family: Family, config: Any) -> None:
    if Version(family.since) > RELEASE:
        raise UnsupportedModel(
            f"{family.name} needs transformers {family.since} or newer, this is {RELEASE}; "
            f"pip install --upgrade transformers"
        )
    if family.name in ("bert", "roberta") and getattr(config, "is_decoder", False):
        raise UnsupportedModel(f"{family.name} as a decoder is not handled; use it as an encoder")
    if getattr(config, "add_cross_attention", False):
        raise UnsupportedModel(f"{family.name} with cross-attention is not handled")


def has_sliding_window(config: Any) -> bool:
    """Return whether some layer attends to a window only."""
    return "sliding_attention" in (getattr(config, "layer_types", None) or ())


def shape_of(family: Family, config: Any) -> ModelShape:
    """Return what the cost of a plan depends on, read from a configuration."""
    hidden = _first_of(config, "hidden_size", "d_model", "dim", "n_embd")
    blocks = _first_of(config, "num_hidden_layers", "encoder_layers", "n_layers", "n_layer")
    row_elements = hidden
    if family.rotary:
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or hidden // heads
        row_elements = 2 * (getattr(config, "num_key_value_heads", None) or heads) * head_dim
    return ModelShape(
        family=family.name,
        blocks=blocks,
        hidden=hidden,
        row_elements=row_elements,
        causal=family.causal,
        rotary=family.rotary,
        max_length=max_length(family, config),
        windowed=has_sliding_window(config),
    )


def max_length(family: Family, config: Any) -> int:
    """Return the longest sequence the model takes, in tokens."""
    if hasattr(config, "patch_size"):
        height, width = image_size(config)
        return family.image_tokens + (height // patch(config)) * (width // patch(config))
    if family.name == "whisper":
        return int(config.max_source_positions)
    positions = int(_first_of(config, "max_position_embeddings", "n_positions"))
    # RoBERTa numbers positions from pad_token_id + 1 on.
    return positions - config.pad_token_id - 1 if family.name == "roberta" else positions


def image_size(config: Any) -> tuple[int, int]:
    """Return (height, width) a vision model was configured for."""
    size = config.image_size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def patch(config: Any) -> int:
    """Return the edge of a square patch."""
    size = config.patch_size
    return int(size if isinstance(size, int) else size[0])


def _first_of(config: Any, *names: str) -> int:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    raise UnsupportedModel(f"{type(config).__name__} has none of {', '.join(names)}")
