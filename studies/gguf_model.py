"""A Llama in a GGUF file, written as an ordinary Hugging Face directory.

The weights are dequantised to float32: exactly the values that the quantised file means. Needs the
package `gguf`, which nothing else here needs.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from studies.packages import StudyError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# Kind of a token in a GGUF vocabulary that stands for no text.
_CONTROL = 3
_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def check_reader() -> None:
    """Raise StudyError where GGUF files cannot be read."""
    if find_spec("gguf") is None:
        raise StudyError("reading SmolLM2 needs the package gguf: pip install gguf")


def convert(source: Path, directory: Path) -> None:
    """Write the Llama of the GGUF file `source` to `directory`, in float32, with its tokenizer.

    Raises:
        StudyError: gguf is missing, or the file is no Llama with a byte-level vocabulary.
    """
    check_reader()
    from gguf import GGUFReader

    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    kind = fields["general.architecture"], fields["tokenizer.ggml.model"]
    if kind != ("llama", "gpt2"):
        raise StudyError(f"{source} holds {kind[0]} with a {kind[1]} vocabulary, not a Llama")
    config = config_of(fields)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    weights = _weights(reader, config)
    model.load_state_dict(weights, assign=True, strict=not config.tie_word_embeddings)
    model.tie_weights()
    model.save_pretrained(directory)
    tokenizer_of(fields).save_pretrained(directory)


def config_of(fields: dict[str, Any]) -> LlamaConfig:
    """Return the configuration that the fields of a GGUF file say."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
        dtype="float32",
    )


def _weights(reader: Any, config: LlamaConfig) -> dict[str, torch.Tensor]:
    from gguf.quants import dequantize

    weights = {}
    for tensor in reader.tensors:
        values = torch.tensor(dequantize(tensor.data, tensor.tensor_type), dtype=torch.float32)
        name, part = hugging_face_name(tensor.name)
        if part == "attn_q":
            values = halves_from_pairs(values, config.num_attention_heads)
        elif part == "attn_k":
            values = halves_from_pairs(values, config.num_key_value_heads)
        weights[name] = values
    return weights


def hugging_face_name(name: str) -> tuple[str, str]:
    """Return what transformers calls a GGUF tensor, and the tensor's part of a block, if any."""
    whole = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }
    if name in whole:
        return whole[name], ""
    _, block, part, _ = name.split(".")
    return f"model.layers.{block}.{_NAMES[part]}.weight", part


def halves_from_pairs(weight_OI: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder a query or key projection, `(out, in)`, from GGUF's rotary layout to transformers'.

    GGUF rotates neighbouring pairs of a head's rows, transformers the first half with the second.
    """
    rows, columns = weight_OI.shape
    paired = weight_OI.reshape(heads, rows // heads // 2, 2, columns)
    return paired.transpose(1, 2).reshape(rows, columns).contiguous()


def tokenizer_of(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Return SmolLM's tokenizer: bytes, every digit by itself, no token before the text."""
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in control]
    )
    special = {
        f"{role}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
        **special,
    )
    tokenizer.chat_template = fields.get("tokenizer.chat_template")
    return tokenizer
