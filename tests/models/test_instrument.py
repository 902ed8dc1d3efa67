"""Nothing of a partitioned pass stays on the model, however the pass ends."""

import copy

import pytest
import torch
from tests.families import BY_NAME, CASES

import prism


def fingerprints(model):
    """Return all that an instrumentation could leave behind."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    return (
        [copy.copy(config.__dict__) for config in configs.values()],
        [config._attn_implementation for config in configs.values()],
        [sorted(module.__dict__) for module in model.modules()],
        [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._forward_hooks_with_kwargs))
            for m in model.modules()
        ],
        [type(module).forward for module in model.modules()],
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pass_leaves_nothing_behind(case):
    model, inputs = case.model(), case.inputs()
    before = fingerprints(model)
    with torch.no_grad():
        plain = model(**inputs)[0]
        with prism.virtual(model, prism.Plan.parse("seq:2:full"), inputs.get("attention_mask")):
            assert fingerprints(model) != before
            model(**inputs)
        assert fingerprints(model) == before
        assert torch.equal(model(**inputs)[0], plain)


@pytest.mark.parametrize("name", ["ViTModel", "BertModel", "GPT2LMHeadModel", "LlamaForCausalLM"])
def test_an_exception_inside_a_block_leaves_nothing_behind(name):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs()
    block = model.get_submodule(case.layout.blocks)[1]

    def fail(*args):
        raise RuntimeError("a block fails")

    with torch.no_grad():
        plain = model(**inputs)[0]
        before = fingerprints(model)
        hook = block.register_forward_pre_hook(fail)
        with (
            pytest.raises(RuntimeError, match="a block fails"),
            prism.virtual(model, prism.Plan.parse("seq:2:L2")),
        ):
            model(**inputs)
        hook.remove()
        assert fingerprints(model) == before
        assert torch.equal(model(**inputs)[0], plain)


def test_eager_attention_stays_eager():
    model = BY_NAME["BertModel"].model()
    model.set_attn_implementation("eager")
    inputs = BY_NAME["BertModel"].inputs(padding=4)
    with torch.no_grad():
        plain = model(**inputs)[0]
        with prism.virtual(model, prism.Plan.parse("seq:2:full"), inputs["attention_mask"]):
            split = model(**inputs)[0]
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(split[real], plain[real], atol=1e-5, rtol=1e-5)
    assert model.config._attn_implementation == "eager"
