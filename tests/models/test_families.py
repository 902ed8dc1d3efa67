"""The table of families against models that exist, and what is refused, with the reason."""

import pytest
import transformers as hf
from packaging.version import Version
from tests.families import BLOCKS, CASES, HEADS, KEY_HEADS, WIDTH

from prism.errors import UnsupportedModel
from prism.models import families
from prism.models.families import FAMILIES, family_of, shape_of
from prism.models.sites import sites_of


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_family_is_described_as_it_is(case):
    model = case.model()
    family = family_of(model.config)
    assert (family.causal, family.rotary) == (case.layout.causal, case.layout.rotary)
    shape = shape_of(family, model.config)
    assert (shape.blocks, shape.hidden) == (BLOCKS, WIDTH)
    if model.main_input_name != "input_ids":
        assert shape.max_length == case.tokens
    sites = sites_of(family, model)
    blocks = list(model.get_submodule(case.layout.blocks))
    assert [site.block for site in sites] == blocks
    for site in sites:
        assert site.attention is site.block.get_submodule(case.layout.attention)
        if not case.layout.rotary:
            assert site.keys is site.block.get_submodule(case.layout.keys)
            assert site.values is site.block.get_submodule(case.layout.values)
            norm = case.layout.norm
            assert site.norm.module is (site.block.get_submodule(norm) if norm else None)


@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [
        (hf.CLIPVisionModel, hf.CLIPVisionConfig),
        (hf.CLIPTextModel, hf.CLIPTextConfig),
        (hf.DeiTModel, hf.DeiTConfig),
        (hf.Dinov2Model, hf.Dinov2Config),
        (hf.GPTNeoXModel, hf.GPTNeoXConfig),
        (hf.LlamaModel, hf.LlamaConfig),
    ],
)
def test_blocks_are_found_in_a_bare_model_too(model_class, config_class):
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": HEADS}
    model = model_class(config_class(num_hidden_layers=BLOCKS, **sizes))
    sites = sites_of(family_of(model.config), model)
    assert len(sites) == BLOCKS


def test_all_families_have_a_case():
    covered = {family_of(case.model().config).name for case in CASES}
    release = families.RELEASE
    assert covered == {each.name for each in FAMILIES if release >= Version(each.since)}


@pytest.mark.parametrize(
    ("config", "row_elements"),
    [
        (hf.ViTConfig(hidden_size=WIDTH), WIDTH),
        (
            hf.LlamaConfig(
                hidden_size=WIDTH, num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS
            ),
            2 * KEY_HEADS * WIDTH // HEADS,
        ),
        (hf.GPTNeoXConfig(hidden_size=WIDTH, num_attention_heads=HEADS), 2 * WIDTH),
        (
            hf.Qwen3Config(
                hidden_size=WIDTH, num_attention_heads=4, num_key_value_heads=1, head_dim=12
            ),
            24,
        ),
    ],
)
def test_a_row_on_the_wire_is_an_input_or_keys_and_values(config, row_elements):
    assert shape_of(family_of(config), config).row_elements == row_elements


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (hf.ViTConfig(image_size=224, patch_size=16), 197),
        (hf.DeiTConfig(image_size=224, patch_size=16), 198),
        (hf.SiglipVisionConfig(image_size=224, patch_size=16), 196),
        (hf.ViTConfig(image_size=(32, 64), patch_size=16), 9),
        (hf.WhisperConfig(), 1500),
        (hf.BertConfig(), 512),
        (hf.RobertaConfig(max_position_embeddings=514), 512),
        (hf.GPT2Config(), 1024),
        (hf.OPTConfig(), 2048),
        (hf.DistilBertConfig(), 512),
    ],
)
def test_longest_sequence(config, length):
    assert shape_of(family_of(config), config).max_length == length


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (hf.T5Config(), "t5 cannot be partitioned: it adds a relative-position bias table"),
        (hf.SwinConfig(), "swin cannot be partitioned: it attends in shifted windows"),
        (hf.DebertaV2Config(), "computes attention from relative positions"),
        (hf.MambaConfig(), "has no attention to partition"),
        (hf.ResNetConfig(), "'resnet' is no family prism knows; it partitions vit, deit"),
        (hf.BertConfig(is_decoder=True), "bert as a decoder is not handled; use it as an encoder"),
        (hf.GPT2Config(add_cross_attention=True), "gpt2 with cross-attention is not handled"),
    ],
)
def test_what_cannot_be_partitioned_is_refused_with_the_reason(config, reason):
    with pytest.raises(UnsupportedModel, match=reason):
        family_of(config)


def test_a_release_too_old_for_a_family_is_named(monkeypatch):
    monkeypatch.setattr(families, "RELEASE", Version("5.0.0"))
    assert family_of(hf.LlamaConfig()).name == "llama"
    with pytest.raises(UnsupportedModel, match=r"modernbert needs transformers 5\.1 or newer"):
        family_of(hf.ModernBertConfig())


def test_a_layout_nobody_has_seen_is_refused():
    case = CASES[0]
    model = case.model()
    owner, _, name = case.layout.blocks.rpartition(".")
    delattr(model.get_submodule(owner), name)
    with pytest.raises(
        UnsupportedModel, match=r"keeps no blocks at layers or encoder\.layer, as vit does"
    ):
        sites_of(family_of(model.config), model)
    other = case.model()
    del other.get_submodule(case.layout.blocks)[0].layernorm_before
    with pytest.raises(UnsupportedModel, match="ViTLayer of vit has no layernorm_before"):
        sites_of(family_of(other.config), other)
