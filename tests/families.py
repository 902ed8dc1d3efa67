"""One tiny model of every family, with what the oracle must know of its layout.

Written down here once more, on purpose not read from `prism.models.families`: a wrong row there
must not excuse itself. Paths are those of the installed transformers, looked up in the releases.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers as hf
from packaging.version import Version
from transformers.models.whisper.modeling_whisper import WhisperEncoder

WIDTH = 32
BLOCKS = 3
HEADS = 4
KEY_HEADS = 2
WORDS = 50
END = WORDS - 1
# No two partitions of 3/1/2 shares are equal, and none of these divides evenly.
TOKENS = 17

_SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "intermediate_size": 64,
}
_IMAGE = {"image_size": 16, "patch_size": 4}
_TEXT = {"vocab_size": WORDS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END}
_WHISPER = {
    "d_model": WIDTH,
    "encoder_layers": BLOCKS,
    "encoder_attention_heads": HEADS,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": HEADS,
    "decoder_ffn_dim": 64,
    "decoder_start_token_id": 1,
    "max_source_positions": 20,
    **_TEXT,
}


@dataclass(frozen=True)
class Layout:
    """Where a model keeps its blocks, and in a block what makes keys and values of its input."""

    blocks: str
    attention: str
    norm: str = ""
    keys: str = ""
    values: str = ""
    causal: bool = False
    rotary: bool = False


@dataclass(frozen=True)
class Case:
    """A family: how to build a tiny model of it, its layout and its length in tokens."""

    name: str
    build: Callable[..., hf.PreTrainedModel]
    layout: Layout
    tokens: int = TOKENS
    means: bool = True  # whether means are defined for it

    def model(self, **changes) -> hf.PreTrainedModel:
        """Return the model, with weights so large that the output depends on everything."""
        torch.manual_seed(0)
        model = self.build(**changes).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(0, 0.15)
            else:
                parameter.data += 0.1 * torch.randn_like(parameter)
        return model

    def inputs(self, batch: int = 2, length: int = 0, padding: int = 0, seed: int = 1) -> dict:
        """Return inputs; the last row of a text batch ends with `padding` padded positions."""
        random = torch.Generator().manual_seed(seed)
        name = self.build.main_input_name
        if name == "pixel_values":
            return {name: torch.randn(batch, 3, 16, 16, generator=random)}
        if name == "input_features":
            return {name: torch.randn(batch, 80, 2 * self.tokens, generator=random)}
        length = length or self.tokens
        ids = torch.randint(3, END, (batch, length), generator=random)
        mask = torch.ones_like(ids)
        mask[-1, length - padding :] = 0
        # What CLIP pools, at the last real token; elsewhere a word like any other.
        ids[torch.arange(batch), mask.sum(1) - 1] = END
        return {name: ids, "attention_mask": mask}


def _case(model_class, config_class, values, layout, name="", **rest) -> Case:
    def build(**changes):
        return model_class(config_class(**{**values, **changes}))

    build.main_input_name = model_class.main_input_name
    return Case(name or model_class.__name__, build, layout, **rest)


def _since(release: str) -> bool:
    return Version(hf.__version__) >= Version(release)


def _vit(base: str) -> Layout:
    if _since("5.9"):
        return _flat_attention(f"{base}layers", "layernorm_before")
    return _wrapped_attention(f"{base}encoder.layer", "layernorm_before")


def _flat_attention(blocks: str, norm: str) -> Layout:
    return Layout(blocks, "attention", norm, "attention.k_proj", "attention.v_proj")


def _wrapped_attention(blocks: str, norm: str) -> Layout:
    inner = "attention.attention"
    return Layout(blocks, inner, norm, f"{inner}.key", f"{inner}.value")


def _clip(blocks: str, causal: bool = False, norm: str = "layer_norm1") -> Layout:
    return Layout(blocks, "self_attn", norm, "self_attn.k_proj", "self_attn.v_proj", causal)


def _bert(blocks: str) -> Layout:
    return Layout(blocks, "attention.self", "", "attention.self.key", "attention.self.value")


_LLAMA = Layout("model.layers", "self_attn", causal=True, rotary=True)
_GROUPED = {**_SIZES, **_TEXT, "num_key_value_heads": KEY_HEADS}

CASES = (
    _case(hf.ViTForImageClassification, hf.ViTConfig, {**_SIZES, **_IMAGE}, _vit("vit.")),
    _case(hf.ViTModel, hf.ViTConfig, {**_SIZES, **_IMAGE}, _vit("")),
    _case(
        hf.DeiTForImageClassification,
        hf.DeiTConfig,
        {**_SIZES, **_IMAGE},
        _vit("deit."),
        tokens=18,
    ),
    _case(
        hf.Dinov2ForImageClassification,
        hf.Dinov2Config,
        {**_IMAGE, "hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS},
        (_flat_attention if _since("5.18") else _wrapped_attention)(
            "dinov2.encoder.layer", "norm1"
        ),
    ),
    _case(
        hf.CLIPVisionModelWithProjection,
        hf.CLIPVisionConfig,
        {**_SIZES, **_IMAGE, "projection_dim": 8},
        _clip("vision_model.encoder.layers"),
    ),
    _case(
        hf.CLIPTextModelWithProjection,
        hf.CLIPTextConfig,
        {**_SIZES, **_TEXT, "projection_dim": 8},
        _clip("text_model.encoder.layers", causal=True),
    ),
    _case(
        hf.SiglipVisionModel,
        hf.SiglipVisionConfig,
        {**_SIZES, **_IMAGE},
        _clip("encoder.layers" if _since("5.6") else "vision_model.encoder.layers"),
        tokens=16,
    ),
    _case(
        hf.BertForSequenceClassification,
        hf.BertConfig,
        {**_SIZES, **_TEXT},
        _bert("bert.encoder.layer"),
    ),
    _case(hf.BertModel, hf.BertConfig, {**_SIZES, **_TEXT}, _bert("encoder.layer")),
    _case(
        hf.RobertaForTokenClassification,
        hf.RobertaConfig,
        {**_SIZES, **_TEXT},
        _bert("roberta.encoder.layer"),
    ),
    _case(
        hf.DistilBertForMaskedLM,
        hf.DistilBertConfig,
        {"dim": WIDTH, "n_layers": BLOCKS, "n_heads": HEADS, "hidden_dim": 64, **_TEXT},
        Layout(
            "distilbert.transformer.layer", "attention", "", "attention.k_lin", "attention.v_lin"
        ),
    ),
    _case(
        hf.GPT2LMHeadModel,
        hf.GPT2Config,
        {"n_embd": WIDTH, "n_layer": BLOCKS, "n_head": HEADS, **_TEXT},
        Layout("transformer.h", "attn", "ln_1", "attn.c_attn", "attn.c_attn", causal=True),
    ),
    _case(
        hf.GPTNeoXForCausalLM,
        hf.GPTNeoXConfig,
        {**_SIZES, **_TEXT},
        Layout("gpt_neox.layers", "attention", causal=True, rotary=True),
    ),
    _case(
        hf.OPTForCausalLM,
        hf.OPTConfig,
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": HEADS,
            "ffn_dim": 64,
            "word_embed_proj_dim": WIDTH,
            **_TEXT,
        },
        _clip("model.decoder.layers", causal=True, norm="self_attn_layer_norm"),
    ),
    _case(
        hf.OPTForCausalLM,
        hf.OPTConfig,
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": HEADS,
            "ffn_dim": 64,
            "word_embed_proj_dim": WIDTH,
            "do_layer_norm_before": False,
            **_TEXT,
        },
        _clip("model.decoder.layers", causal=True, norm=""),
        name="OPTForCausalLM-norm-after",
    ),
    _case(hf.LlamaForCausalLM, hf.LlamaConfig, _GROUPED, _LLAMA),
    _case(hf.Qwen2ForCausalLM, hf.Qwen2Config, _GROUPED, _LLAMA),
    _case(
        hf.Qwen2ForCausalLM,
        hf.Qwen2Config,
        {**_GROUPED, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
        _LLAMA,
        name="Qwen2ForCausalLM-window",
        means=False,
    ),
    _case(hf.Qwen3ForCausalLM, hf.Qwen3Config, {**_GROUPED, "head_dim": 12}, _LLAMA),
    _case(
        hf.WhisperForAudioClassification,
        hf.WhisperConfig,
        _WHISPER,
        _clip("encoder.layers", norm="self_attn_layer_norm"),
        tokens=20,
    ),
    _case(
        WhisperEncoder,
        hf.WhisperConfig,
        _WHISPER,
        _clip("layers", norm="self_attn_layer_norm"),
        tokens=20,
    ),
)
if _since("5.1"):  # before, its attention could not be replaced
    CASES += (
        _case(
            hf.ModernBertForMaskedLM,
            hf.ModernBertConfig,
            {**_SIZES, **_TEXT, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 6},
            Layout("model.layers", "attn", rotary=True),
            means=False,
        ),
    )
BY_NAME = {case.name: case for case in CASES}

# What shares of 3, 1 and 2 sixths, of 1, 3 and 2, and equal ones make of a length, by hand.
PARTS = {
    16: {"3/1/2": (8, 3, 5), "1/3/2": (3, 8, 5), "": (6, 5, 5)},
    17: {"3/1/2": (8, 3, 6), "1/3/2": (3, 8, 6), "": (6, 6, 5)},
    18: {"3/1/2": (9, 3, 6), "1/3/2": (3, 9, 6), "": (6, 6, 6)},
    20: {"3/1/2": (10, 3, 7), "1/3/2": (3, 10, 7), "": (7, 7, 6)},
}


def real_rows(output, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Return the tensors of a model's output; of those by position, the real tokens only."""
    found = {}
    for name, value in output.items():
        if isinstance(value, torch.Tensor):
            by_position = mask is not None and tuple(value.shape[:2]) == tuple(mask.shape)
            found[name] = value[mask.bool()] if by_position else value
    assert found
    return found


def assert_equal_outputs(actual, expected, mask=None, atol: float = 1e-5) -> None:
    """Compare two outputs of a model, real tokens only."""
    actual, expected = real_rows(actual, mask), real_rows(expected, mask)
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], atol=atol, rtol=1e-5)


def largest_difference(output, other, mask=None) -> float:
    """Return the largest absolute difference of two outputs of a model."""
    output, other = real_rows(output, mask), real_rows(other, mask)
    return max(float((output[name] - other[name]).abs().max()) for name in other)
